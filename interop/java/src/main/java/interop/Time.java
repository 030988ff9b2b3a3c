package interop;

import static interop.Session.same;
import static interop.Session.tag;
import static interop.Session.take;
import static interop.Session.text;
import static interop.Session.unique;

import com.rabbitmq.client.AMQP.BasicProperties;
import com.rabbitmq.client.Delivery;
import java.util.Date;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;

/** Time in queues, and quorum queues. */
final class Time {
    private Time() {}

    static void register(Map<String, Main.Scenario> scenarios) {
        scenarios.put("expiry", Time::expiry);
        scenarios.put("quorum_queue", Time::quorumQueue);
        scenarios.put("at_least_once", Time::atLeastOnce);
        scenarios.put("delays", Time::delays);
        scenarios.put("delayed_retry", Time::delayedRetry);
        scenarios.put("retry_until_dead", Time::retryUntilDead);
        scenarios.put("consumer_timeout", Time::consumerTimeout);
        scenarios.put("settle", Time::settle);
    }

    private static BasicProperties headers(Map<String, Object> headers) {
        return new BasicProperties.Builder().deliveryMode(2).headers(headers).build();
    }

    private static Object header(Delivery delivery, String name) {
        Map<String, Object> headers = delivery.getProperties().getHeaders();
        return headers == null ? null : headers.get(name);
    }

    private static void expiry(String uri) throws Exception {
        try (Session session = Session.confirming(uri)) {
            String queue = session.declare("ttl", Map.of("x-message-ttl", 60000));
            session.publish(queue, new BasicProperties.Builder().expiration("50").build(), "short".getBytes());
            session.publish(queue, new BasicProperties.Builder().expiration("70000").build(), "long".getBytes());
            session.publish(queue, "of the queue");
            session.channel.waitForConfirmsOrDie();
            session.soon("the short one expired", () -> session.ready(queue) == 2);
            same("left", session.bodies(queue), List.of("long", "of the queue"));
            Topology.fails(session, 406, "invalid expiration", other -> other.basicPublish(
                    "", queue, new BasicProperties.Builder().expiration("soon").build(), new byte[0]));
            session.channel.queueDelete(queue);
        }
    }

    private static void quorumQueue(String uri) throws Exception {
        try (Session session = Session.confirming(uri)) {
            String dead = session.declare("quorum-dead");
            String queue = session.declare("quorum", Map.of("x-queue-type", "quorum", "x-delivery-limit", 2,
                    "x-dead-letter-exchange", "", "x-dead-letter-routing-key", dead));
            session.publish(queue, "poison");
            BlockingQueue<Delivery> deliveries = session.consume(queue);
            for (Object count : new Object[] {null, 1L, 2L}) {
                Delivery delivery = deliveries.take();
                same("x-delivery-count", header(delivery, "x-delivery-count"), count);
                session.channel.basicReject(tag(delivery), true);
            }
            session.soon("the poison message is dead-lettered", () -> session.ready(dead) == 1);
            Map<?, ?> death = (Map<?, ?>) ((List<?>) session.get(dead).getProps().getHeaders().get("x-death")).get(0);
            same("x-death", death.get("reason") + " " + death.get("queue"), "delivery_limit " + queue);
            Topology.fails(session, 406, "invalid property 'non-durable'", other ->
                    other.queueDeclare(unique("q"), false, false, false, Map.of("x-queue-type", "quorum")));
            session.channel.queueDelete(queue);
            session.channel.queueDelete(dead);
        }
    }

    private static void atLeastOnce(String uri) throws Exception {
        try (Session session = Session.confirming(uri)) {
            String dead = session.declare("safe-dead");
            String source = unique("safe-dead-exchange");
            session.channel.exchangeDeclare(source, "fanout", true);
            String queue = session.declare("safe", Map.of("x-queue-type", "quorum", "x-overflow", "reject-publish",
                    "x-dead-letter-strategy", "at-least-once", "x-dead-letter-exchange", source));
            session.publish(queue, "kept");
            session.channel.basicReject(tag(session.consume(queue).take()), false);
            // The exchange leads nowhere, so the queue keeps the message until it does.
            session.channel.queueBind(dead, source, "");
            session.soon("the dead letter arrives once there is a way", () -> session.ready(dead) == 1);
            same("body", text(session.get(dead).getBody()), "kept");
            session.channel.queueDelete(queue);
            session.channel.queueDelete(dead);
            session.channel.exchangeDelete(source);
        }
    }

    private static void delays(String uri) throws Exception {
        try (Session session = Session.confirming(uri)) {
            String queue = session.declare("delayed");
            String source = unique("delayed-exchange");
            session.channel.exchangeDeclare(source, "x-delayed-message", true, false, Map.of("x-delayed-type", "direct"));
            session.channel.queueBind(queue, source, "key");
            Date later = new Date(System.currentTimeMillis() + 2000);
            session.publish(queue, headers(Map.of("x-opt-delivery-time", later)), "fourth".getBytes());
            session.channel.basicPublish(source, "key", headers(Map.of("x-delay", 600)), "third".getBytes());
            session.publish(queue, headers(Map.of("x-opt-delivery-delay", 300L)), "second".getBytes());
            session.channel.basicPublish(source, "key", headers(Map.of("x-delay", -1)), "first".getBytes());
            session.channel.waitForConfirmsOrDie();
            same("the one without a delay is there", session.ready(queue), 1);
            session.soon("all came", () -> session.ready(queue) == 4);
            same("order", session.bodies(queue), List.of("first", "second", "third", "fourth"));
            session.channel.exchangeDelete(source);
            session.channel.queueDelete(queue);
        }
    }

    private static void delayedRetry(String uri) throws Exception {
        try (Session session = Session.confirming(uri)) {
            String queue = session.declare("retried", Map.of("x-delayed-retry-type", "all", "x-delayed-retry-min", 200));
            session.publish(queue, "again");
            session.publish(queue, "behind");
            BlockingQueue<Delivery> deliveries = session.consume(queue);
            session.channel.basicNack(tag(deliveries.take()), false, true);
            for (String expected : List.of("behind false", "again true")) {
                Delivery delivery = deliveries.take();
                same("delivery", text(delivery.getBody()) + " " + delivery.getEnvelope().isRedeliver(), expected);
                session.channel.basicAck(tag(delivery), false);
            }
            session.channel.queueDelete(queue);
        }
    }

    private static void retryUntilDead(String uri) throws Exception {
        try (Session session = Session.confirming(uri)) {
            String dead = session.declare("given-up");
            String queue = session.declare("scheduled", Map.of(
                    "x-delayed-retry-type", "failed", "x-delayed-retry-schedule", List.of(50, 150), "x-delivery-limit", 3,
                    "x-dead-letter-exchange", "", "x-dead-letter-routing-key", dead));
            session.publish(queue, "poison");
            BlockingQueue<Delivery> deliveries = session.consume(queue);
            long[] waits = {0, 50, 150, 150};
            long before = System.nanoTime();
            for (int attempt = 0; attempt < waits.length; attempt++) {
                Delivery delivery = deliveries.take();
                same("x-delivery-count", header(delivery, "x-delivery-count"), attempt == 0 ? null : (Object) (long) attempt);
                long waited = (System.nanoTime() - before) / 1_000_000;
                same("waited " + waited, waited >= waits[attempt], true);
                before = System.nanoTime();
                session.channel.basicReject(tag(delivery), true);
            }
            session.soon("given up", () -> session.ready(dead) == 1);
            session.channel.queueDelete(queue);
            session.channel.queueDelete(dead);
        }
    }

    private static void consumerTimeout(String uri) throws Exception {
        try (Session session = Session.confirming(uri)) {
            String strict = session.declare("strict", Map.of("x-consumer-timeout", 200));
            session.publish(strict, "held");
            Topology.fails(session, 406, "timed out. Timeout value used: 200 ms",
                    other -> other.basicConsume(strict, false, (tag, delivery) -> {}, tag -> {}));
            same("it went back", session.bodies(strict), List.of("held"));
            // A visibility timeout: only the message goes back, and the consumer goes on.
            String lenient = session.declare("lenient",
                    Map.of("x-consumer-timeout", 200, "x-consumer-timeout-action", "requeue"));
            session.publish(lenient, "seen twice");
            List<Delivery> taken = take(session.consume(lenient), 2);
            same("first", taken.get(0).getEnvelope().isRedeliver(), false);
            same("second", taken.get(1).getEnvelope().isRedeliver(), true);
            session.channel.basicAck(tag(taken.get(0)), false); // too late, and forgiven
            session.channel.basicAck(tag(taken.get(1)), false);
            same("left", session.ready(lenient), 0);
            session.channel.queueDelete(strict);
            session.channel.queueDelete(lenient);
        }
    }

    private static void settle(String uri) throws Exception {
        try (Session session = Session.confirming(uri)) {
            String target = session.declare("settled-target");
            String refused = session.declare("settled-refused");
            String queue = session.declare("settled", Map.of(
                    "x-consumer-timeout", 1500, "x-dead-letter-exchange", "", "x-dead-letter-routing-key", refused));
            for (String body : List.of("retried", "answered", "rejected", "extended")) {
                session.publish(queue, body);
            }
            BlockingQueue<Delivery> deliveries = session.consume(queue);
            List<Delivery> taken = take(deliveries, 4);
            order(session, taken.get(0), Map.of("x-op", "retry", "x-delay", 100));
            order(session, taken.get(1), Map.of("x-op", "ack-and-publish", "x-exchange", "", "x-routing-key", target));
            order(session, taken.get(2), Map.of(
                    "x-op", "reject", "x-reason", "no such customer", "x-annotations", Map.of("customer", 7)));
            order(session, taken.get(3), Map.of("x-op", "extend", "x-timeout", 60000));
            session.channel.waitForConfirmsOrDie();
            same("published with the ack", session.bodies(target), List.of("42"));
            session.soon("the rejected one is dead-lettered", () -> session.ready(refused) == 1);
            Map<String, Object> why = session.get(refused).getProps().getHeaders();
            same("why", why.get("x-reason") + " " + why.get("customer"), "no such customer 7");
            Delivery again = deliveries.take();
            same("the retry", text(again.getBody()) + header(again, "x-delivery-count"), "retried1");
            session.channel.basicAck(tag(again), false);
            // Longer than the queue allows: without the extension the channel would be closed.
            Thread.sleep(2000);
            session.channel.basicAck(tag(taken.get(3)), false);
            same("left", session.ready(queue), 0);
            Topology.fails(session, 406, "", other -> other.basicPublish(
                    "amq.settle", "", headers(Map.of("x-op", "retry", "x-delivery-tag", 99)), new byte[0]));
            for (String name : List.of(queue, target, refused)) {
                session.channel.queueDelete(name);
            }
        }
    }

    private static void order(Session session, Delivery delivery, Map<String, Object> order) throws Exception {
        Map<String, Object> headers = new HashMap<>(order);
        headers.put("x-delivery-tag", tag(delivery));
        session.channel.basicPublish("amq.settle", "", headers(headers), "42".getBytes());
    }
}

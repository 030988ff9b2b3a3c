package interop;

import static interop.Session.same;
import static interop.Session.tag;
import static interop.Session.take;
import static interop.Session.text;

import com.rabbitmq.client.AMQP.BasicProperties;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Delivery;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;

/** What queues and channels can be asked to do. */
final class Queues {
    private Queues() {}

    static void register(Map<String, Main.Scenario> scenarios) {
        scenarios.put("length_limits", Queues::lengthLimits);
        scenarios.put("dead_letters", Queues::deadLetters);
        scenarios.put("priorities", Queues::priorities);
        scenarios.put("single_active_consumer", Queues::singleActiveConsumer);
        scenarios.put("consumer_priorities", Queues::consumerPriorities);
        scenarios.put("cancel_notify", Queues::cancelNotify);
        scenarios.put("direct_reply_to", Queues::directReplyTo);
        scenarios.put("global_qos", Queues::globalQos);
        scenarios.put("transactions", Queues::transactions);
        scenarios.put("carbon_copies", Queues::carbonCopies);
        scenarios.put("consistent_hash", Queues::consistentHash);
    }

    private static void lengthLimits(String uri) throws Exception {
        try (Session session = Session.confirming(uri)) {
            String dead = session.declare("limit-dead");
            limited(session, dead, "drop-head", false, List.of("1", "2"), List.of("0"));
            limited(session, dead, "reject-publish", true, List.of("0", "1"), List.of());
            limited(session, dead, "reject-publish-dlx", true, List.of("0", "1"), List.of("2"));
            session.channel.queueDelete(dead);
        }
    }

    private static void limited(
            Session session, String dead, String overflow, boolean nacked, List<String> kept, List<String> deadLetters)
            throws Exception {
        for (String limit : List.of("x-max-length", "x-max-length-bytes")) {
            String queue = session.declare(overflow + limit, Map.of(
                    limit, 2, "x-overflow", overflow, "x-dead-letter-exchange", "", "x-dead-letter-routing-key", dead));
            boolean all = true;
            for (String body : List.of("0", "1", "2")) {
                session.publish(queue, body);
                all &= session.channel.waitForConfirms();
            }
            same(overflow + ": a nack", !all, nacked);
            same(overflow + ": kept", session.bodies(queue), kept);
            session.soon("dead letters arrived", () -> session.ready(dead) == deadLetters.size());
            same(overflow + ": dead letters", session.bodies(dead), deadLetters);
            session.channel.queueDelete(queue);
        }
    }

    private static void deadLetters(String uri) throws Exception {
        try (Session session = Session.confirming(uri)) {
            String dead = session.declare("dead");
            BlockingQueue<Delivery> deliveries = session.consume(dead);
            for (String reason : List.of("rejected", "expired", "maxlen")) {
                Map<String, Object> arguments =
                        new HashMap<>(Map.of("x-dead-letter-exchange", "", "x-dead-letter-routing-key", dead));
                if (reason.equals("expired")) {
                    arguments.put("x-message-ttl", 1);
                } else if (reason.equals("maxlen")) {
                    arguments.put("x-max-length", 1);
                }
                String queue = session.declare("dead-" + reason, arguments);
                session.publish(queue, new BasicProperties.Builder().headers(Map.of("own", 1)).build(), "first".getBytes());
                session.channel.waitForConfirmsOrDie();
                if (reason.equals("rejected")) {
                    long tag = session.channel.basicGet(queue, false).getEnvelope().getDeliveryTag();
                    session.channel.basicReject(tag, false);
                } else if (reason.equals("maxlen")) {
                    session.publish(queue, "second");
                }
                Delivery delivery = deliveries.take();
                session.channel.basicAck(tag(delivery), false);
                Map<String, Object> headers = delivery.getProperties().getHeaders();
                Map<?, ?> death = (Map<?, ?>) ((List<?>) headers.get("x-death")).get(0);
                same("count", death.get("count"), 1L);
                same("routing keys", String.valueOf(death.get("routing-keys")), "[" + queue + "]");
                same("dated", death.get("time") instanceof java.util.Date, true);
                same("x-death", death.get("reason") + " " + death.get("queue"), reason + " " + queue);
                same("first death", headers.get("x-first-death-reason") + " " + headers.get("x-first-death-queue"),
                        reason + " " + queue);
                same("the publisher's header", headers.get("own"), 1);
                session.channel.queueDelete(queue);
            }
            session.channel.queueDelete(dead);
        }
    }

    private static void priorities(String uri) throws Exception {
        try (Session session = Session.confirming(uri)) {
            String queue = session.declare("priorities", Map.of("x-max-priority", 5));
            for (int priority : new int[] {0, 1, 5, 9, 1}) {
                BasicProperties properties = new BasicProperties.Builder().priority(priority).build();
                session.publish(queue, properties, String.valueOf(priority).getBytes());
            }
            session.channel.waitForConfirmsOrDie();
            same("order", session.bodies(queue), List.of("5", "9", "1", "1", "0"));
            session.channel.queueDelete(queue);
        }
    }

    private static void singleActiveConsumer(String uri) throws Exception {
        try (Session session = Session.confirming(uri)) {
            String queue = session.declare("single", Map.of("x-single-active-consumer", true));
            BlockingQueue<String> log = new LinkedBlockingQueue<>();
            note(session.channel, queue, "first", log, Map.of());
            note(session.channel, queue, "second", log, Map.of());
            whoReceives(session, queue, log);
        }
    }

    private static void consumerPriorities(String uri) throws Exception {
        try (Session session = Session.confirming(uri)) {
            String queue = session.declare("consumer-priorities");
            BlockingQueue<String> log = new LinkedBlockingQueue<>();
            note(session.channel, queue, "second", log, Map.of());
            note(session.channel, queue, "first", log, Map.of("x-priority", 10));
            whoReceives(session, queue, log);
        }
    }

    private static void note(Channel channel, String queue, String name, BlockingQueue<String> log, Map<String, Object> options)
            throws Exception {
        channel.basicConsume(queue, true, name, false, false, options,
                (tag, delivery) -> log.add(name + " " + text(delivery.getBody())), tag -> {});
    }

    private static void whoReceives(Session session, String queue, BlockingQueue<String> log) throws Exception {
        session.publish(queue, "a");
        session.publish(queue, "b");
        same("who received", List.of(log.take(), log.take()), List.of("first a", "first b"));
        session.channel.basicCancel("first");
        session.publish(queue, "c");
        same("who received then", log.take(), "second c");
        session.channel.queueDelete(queue);
    }

    private static void cancelNotify(String uri) throws Exception {
        try (Session session = new Session(uri); Session other = new Session(uri)) {
            String queue = session.declare("cancel-notify");
            BlockingQueue<String> cancelled = new LinkedBlockingQueue<>();
            String tag = session.channel.basicConsume(queue, true, (it, delivery) -> {}, cancelled::add);
            other.channel.queueDelete(queue);
            same("cancelled", cancelled.take(), tag);
        }
    }

    private static void directReplyTo(String uri) throws Exception {
        String pseudo = "amq.rabbitmq.reply-to";
        try (Session client = new Session(uri); Session server = new Session(uri)) {
            String queue = server.declare("rpc");
            BlockingQueue<Delivery> answers = new LinkedBlockingQueue<>();
            client.channel.basicConsume(pseudo, true, (tag, delivery) -> answers.add(delivery), tag -> {});
            client.publish(queue, new BasicProperties.Builder().replyTo(pseudo).correlationId("7").build(), "2+2".getBytes());
            Delivery question = server.consume(queue).take();
            String replyTo = question.getProperties().getReplyTo();
            same(replyTo, replyTo.startsWith(pseudo + "."), true);
            server.publish(replyTo, new BasicProperties.Builder().correlationId("7").build(), "4".getBytes());
            server.channel.basicAck(tag(question), false);
            Delivery answer = answers.take();
            same("answer", text(answer.getBody()) + answer.getProperties().getCorrelationId(), "47");
            Topology.fails(server, 406, "fast reply consumer does not exist", other -> other.basicPublish(
                    "", queue, new BasicProperties.Builder().replyTo(pseudo).build(), new byte[0]));
            server.channel.queueDelete(queue);
        }
    }

    private static void globalQos(String uri) throws Exception {
        try (Session session = Session.confirming(uri)) {
            List<String> queues = List.of(session.declare("qos-0"), session.declare("qos-1"));
            for (int number = 0; number < 10; number++) {
                session.publish(queues.get(number % 2), "");
            }
            session.channel.waitForConfirmsOrDie();
            session.channel.basicQos(3, true);
            BlockingQueue<Delivery> deliveries = new LinkedBlockingQueue<>();
            for (String queue : queues) {
                session.channel.basicConsume(queue, false, (tag, delivery) -> deliveries.add(delivery), tag -> {});
            }
            List<Delivery> taken = take(deliveries, 3);
            same("left: one limit for two", session.ready(queues.get(0)) + session.ready(queues.get(1)), 7);
            session.channel.basicAck(tag(taken.get(2)), true);
            take(deliveries, 3);
            same("left", session.ready(queues.get(0)) + session.ready(queues.get(1)), 4);
            for (String queue : queues) {
                session.channel.queueDelete(queue);
            }
        }
    }

    private static void transactions(String uri) throws Exception {
        try (Session session = new Session(uri); Session watcher = new Session(uri)) {
            String queue = session.declare("tx");
            session.publish(queue, "old");
            session.channel.txSelect();
            long tag = session.channel.basicGet(queue, false).getEnvelope().getDeliveryTag();
            session.publish(queue, "rolled back");
            session.channel.basicAck(tag, false);
            session.channel.txRollback();
            same("ready after the rollback", watcher.ready(queue), 0);
            session.publish(queue, "new");
            session.channel.basicAck(tag, false);
            same("ready before the commit", watcher.ready(queue), 0);
            session.channel.txCommit();
            same("after the commit", watcher.bodies(queue), List.of("new"));
            Topology.fails(session, 406, "cannot switch from confirm to tx mode", other -> {
                other.confirmSelect();
                other.txSelect();
            });
            session.channel.queueDelete(queue);
        }
    }

    private static void carbonCopies(String uri) throws Exception {
        try (Session session = Session.confirming(uri)) {
            String to = session.declare("copies-to");
            String cc = session.declare("copies-cc");
            String bcc = session.declare("copies-bcc");
            Map<String, Object> headers = Map.of("CC", List.of(cc, to), "BCC", List.of(bcc), "other", 1);
            session.publish(to, new BasicProperties.Builder().headers(headers).build(), new byte[0]);
            session.channel.waitForConfirmsOrDie();
            for (String queue : List.of(to, cc, bcc)) {
                var message = session.get(queue);
                same("BCC is taken away", message.getProps().getHeaders().keySet(), java.util.Set.of("CC", "other"));
                same("routing key", message.getEnvelope().getRoutingKey(), to);
                same("one copy each", session.ready(queue), 0);
                session.channel.queueDelete(queue);
            }
        }
    }

    private static void consistentHash(String uri) throws Exception {
        try (Session session = Session.confirming(uri)) {
            List<String> queues = List.of(session.declare("hash-light"), session.declare("hash-heavy"));
            String source = Session.unique("hash");
            session.channel.exchangeDeclare(source, "x-consistent-hash", true, true, Map.of("hash-header", "on"));
            session.channel.queueBind(queues.get(0), source, "1");
            session.channel.queueBind(queues.get(1), source, "3");
            List<List<List<String>>> rounds = new ArrayList<>();
            for (int round = 0; round < 2; round++) {
                for (int number = 0; number < 200; number++) {
                    BasicProperties properties = new BasicProperties.Builder().headers(Map.of("on", "k" + number)).build();
                    session.channel.basicPublish(source, "", properties, String.valueOf(number).getBytes());
                }
                session.channel.waitForConfirmsOrDie();
                rounds.add(List.of(session.bodies(queues.get(0)), session.bodies(queues.get(1))));
            }
            same("a value goes the same way every time", rounds.get(1), rounds.get(0));
            int few = rounds.get(0).get(0).size();
            int many = rounds.get(0).get(1).size();
            same("one queue each", few + many, 200);
            same("weights 1 and 3 shared " + few + " and " + many, 0 < few && few < many, true);
            for (String queue : queues) {
                session.channel.queueDelete(queue);
            }
        }
    }
}

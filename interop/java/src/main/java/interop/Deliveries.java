package interop;

import static interop.Session.same;
import static interop.Session.tag;
import static interop.Session.take;
import static interop.Session.text;
import static interop.Session.unique;

import com.rabbitmq.client.AMQP.BasicProperties;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.Delivery;
import com.rabbitmq.client.MessageProperties;
import com.rabbitmq.client.Recoverable;
import com.rabbitmq.client.RecoveryListener;
import java.net.Socket;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicReference;

/** Scenarios about what happens to a message between publish and ack. */
final class Deliveries {
    private Deliveries() {}

    static void register(Map<String, Main.Scenario> scenarios) {
        scenarios.put("publish_confirms", Deliveries::publishConfirms);
        scenarios.put("consume_prefetch", Deliveries::consumePrefetch);
        scenarios.put("nack_requeue", Deliveries::nackRequeue);
        scenarios.put("mandatory_return", Deliveries::mandatoryReturn);
        scenarios.put("reconnect", Deliveries::reconnect);
    }

    private static void publishConfirms(String uri) throws Exception {
        try (Session session = new Session(uri)) {
            String queue = session.declare("publish-confirms");
            session.channel.confirmSelect();
            for (int number = 0; number < 1000; number++) {
                session.publish(queue, MessageProperties.PERSISTENT_BASIC, String.valueOf(number).getBytes());
            }
            session.channel.waitForConfirmsOrDie();
            same("ready", session.ready(queue), 1000);
            for (int number = 0; number < 1000; number++) {
                same("order", text(session.get(queue).getBody()), String.valueOf(number));
            }
            session.channel.queueDelete(queue);
        }
    }

    private static void consumePrefetch(String uri) throws Exception {
        try (Session session = new Session(uri)) {
            String queue = session.declare("consume-prefetch");
            session.channel.confirmSelect(); // RabbitMQ's counts may lag behind messages that are not confirmed
            for (int number = 0; number < 20; number++) {
                session.publish(queue, String.valueOf(number));
            }
            session.channel.waitForConfirmsOrDie();
            session.channel.basicQos(5);
            BlockingQueue<Delivery> deliveries = session.consume(queue);
            List<Delivery> taken = take(deliveries, 5);
            same("ready with five unacked", session.ready(queue), 15);
            session.channel.basicAck(tag(taken.get(2)), true);
            taken.addAll(take(deliveries, 3));
            same("ready after three acks", session.ready(queue), 12);
            session.channel.basicAck(0, true);
            taken.addAll(take(deliveries, 5));
            session.channel.basicAck(tag(taken.get(12)), true);
            taken.addAll(take(deliveries, 5));
            for (int number = 0; number < 18; number++) {
                same("order", text(taken.get(number).getBody()), String.valueOf(number));
            }
            session.channel.queueDelete(queue);
        }
    }

    private static void nackRequeue(String uri) throws Exception {
        try (Session session = new Session(uri)) {
            String queue = session.declare("nack-requeue");
            session.publish(queue, "a");
            session.publish(queue, "b");
            session.publish(queue, "c");
            session.channel.basicQos(1);
            BlockingQueue<Delivery> deliveries = session.consume(queue);
            session.channel.basicNack(expect(deliveries, "a", false), false, true);
            session.channel.basicReject(expect(deliveries, "a", true), true);
            session.channel.basicNack(expect(deliveries, "a", true), false, false);
            session.channel.basicReject(expect(deliveries, "b", false), false);
            expect(deliveries, "c", false);
            session.channel.basicRecover();
            session.channel.basicAck(expect(deliveries, "c", true), false);
            same("ready at the end", session.ready(queue), 0);
            session.channel.queueDelete(queue);
        }
    }

    /** Takes the next delivery, which must be this one, and returns its delivery tag. */
    private static long expect(BlockingQueue<Delivery> deliveries, String body, boolean redelivered) throws Exception {
        Delivery delivery = deliveries.take();
        same("body", text(delivery.getBody()), body);
        same("redelivered flag of " + body, delivery.getEnvelope().isRedeliver(), redelivered);
        return tag(delivery);
    }

    private static void mandatoryReturn(String uri) throws Exception {
        try (Session session = new Session(uri)) {
            // Returns and confirms are reported by the same thread, in the order they came.
            List<Object> events = Collections.synchronizedList(new ArrayList<>());
            session.channel.addReturnListener(returned -> {
                events.add(List.of(returned.getReplyCode(), returned.getReplyText(), returned.getExchange(),
                        returned.getRoutingKey(), returned.getProperties().getMessageId(), text(returned.getBody())));
            });
            session.channel.addConfirmListener((tag, multiple) -> events.add(tag), (tag, multiple) -> events.add("nack"));
            session.channel.confirmSelect();
            var properties = new BasicProperties.Builder().messageId("m1").build();
            session.channel.basicPublish("amq.direct", unique("nowhere"), true, properties, "back".getBytes());
            session.channel.waitForConfirmsOrDie();
            same("events", events, List.of(
                    List.of(312, "NO_ROUTE", "amq.direct", unique("nowhere"), "m1", "back"), 1L));
        }
    }

    private static void reconnect(String uri) throws Exception {
        String queue;
        try (Session session = new Session(uri)) {
            queue = session.declare("reconnect");
            session.channel.confirmSelect();
            session.publish(queue, MessageProperties.PERSISTENT_BASIC, "kept".getBytes());
            session.channel.waitForConfirmsOrDie();
            expect(session.consume(queue), "kept", false);
        }
        // Closed by us, with the message unacked. The next socket is dropped, and the client recovers by itself.
        AtomicReference<Socket> socket = new AtomicReference<>();
        ConnectionFactory factory = Session.factory(uri);
        factory.setNetworkRecoveryInterval(100);
        factory.setSocketConfigurator(socket::set);
        try (Session session = new Session(factory)) {
            Semaphore recovered = new Semaphore(0);
            ((Recoverable) session.connection).addRecoveryListener(new RecoveryListener() {
                @Override
                public void handleRecovery(Recoverable connection) {
                    recovered.release();
                }

                @Override
                public void handleRecoveryStarted(Recoverable connection) {}
            });
            BlockingQueue<Delivery> answers = new LinkedBlockingQueue<>();
            String serverNamed = session.channel.queueDeclare().getQueue();
            session.channel.queueBind(serverNamed, "amq.fanout", "");
            session.channel.basicConsume(serverNamed, true, (tag, delivery) -> answers.add(delivery), tag -> {});
            BlockingQueue<Delivery> deliveries = session.consume(queue);
            expect(deliveries, "kept", true);
            socket.get().close(); // without a word to the broker
            recovered.acquire();
            session.channel.basicAck(expect(deliveries, "kept", true), false);
            // The client has made a new server-named queue, with the old binding and consumer.
            session.channel.basicPublish("amq.fanout", unique("answer"), null, "answer".getBytes());
            while (!answers.take().getEnvelope().getRoutingKey().equals(unique("answer"))) {
                // Somebody else's message: every user of the broker shares this exchange.
            }
            same("ready at the end", session.ready(queue), 0);
            session.channel.queueDelete(queue);
        }
    }
}

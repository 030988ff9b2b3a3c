package interop;

import com.rabbitmq.client.AMQP.BasicProperties;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.Delivery;
import com.rabbitmq.client.GetResponse;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.UUID;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;

/** A connection with one channel, and the few steps every scenario takes. */
final class Session implements AutoCloseable {
    /** Names carry it, so that runs against one broker never meet. */
    private static final String RUN = UUID.randomUUID().toString().substring(0, 8);

    final Connection connection;
    final Channel channel;

    Session(String uri) throws Exception {
        this(factory(uri));
    }

    Session(ConnectionFactory factory) throws Exception {
        connection = factory.newConnection("interop");
        channel = connection.createChannel();
    }

    static ConnectionFactory factory(String uri) throws Exception {
        ConnectionFactory factory = new ConnectionFactory();
        factory.setUri(uri);
        return factory;
    }

    /** One whose channel asks for confirms. */
    static Session confirming(String uri) throws Exception {
        Session session = new Session(uri);
        session.channel.confirmSelect();
        return session;
    }

    @Override
    public void close() throws Exception {
        if (connection.isOpen()) {
            connection.close();
        }
    }

    static String unique(String name) {
        return "interop-" + RUN + "-" + name;
    }

    /** Declares a durable queue with a name of this run. */
    String declare(String name) throws Exception {
        return channel.queueDeclare(unique(name), true, false, false, null).getQueue();
    }

    /** Declares a durable queue with these arguments. */
    String declare(String name, Map<String, Object> arguments) throws Exception {
        return channel.queueDeclare(unique(name), true, false, false, arguments).getQueue();
    }

    /** Everything that waits in a queue, taken out of it. */
    List<String> bodies(String queue) throws Exception {
        List<String> found = new ArrayList<>();
        for (GetResponse message; (message = channel.basicGet(queue, true)) != null; ) {
            found.add(text(message.getBody()));
        }
        return found;
    }

    /** What is waited for. */
    interface Condition {
        boolean holds() throws Exception;
    }

    /** Waits until the condition holds. */
    void soon(String what, Condition condition) throws Exception {
        long deadline = System.nanoTime() + 20_000_000_000L;
        while (!condition.holds()) {
            same("gave up waiting until " + what, System.nanoTime() < deadline, true);
            Thread.sleep(10);
        }
    }

    void publish(String queue, String body) throws Exception {
        publish(queue, null, body.getBytes(StandardCharsets.UTF_8));
    }

    void publish(String queue, BasicProperties properties, byte[] body) throws Exception {
        channel.basicPublish("", queue, properties, body);
    }

    /** How many messages of a queue wait for a consumer. */
    int ready(String queue) throws Exception {
        return channel.queueDeclarePassive(queue).getMessageCount();
    }

    /** Gets a message that must be there, with automatic acknowledgement. */
    GetResponse get(String queue) throws Exception {
        return Objects.requireNonNull(channel.basicGet(queue, true), queue + " is empty");
    }

    /** Consumes from a queue; the deliveries wait in the returned one. */
    BlockingQueue<Delivery> consume(String queue) throws Exception {
        BlockingQueue<Delivery> deliveries = new LinkedBlockingQueue<>();
        channel.basicConsume(queue, false, (tag, delivery) -> deliveries.add(delivery), tag -> {});
        return deliveries;
    }

    static List<Delivery> take(BlockingQueue<Delivery> deliveries, int count) throws InterruptedException {
        List<Delivery> taken = new ArrayList<>();
        while (taken.size() < count) {
            taken.add(deliveries.take());
        }
        return taken;
    }

    static String text(byte[] body) {
        return new String(body, StandardCharsets.UTF_8);
    }

    static long tag(Delivery delivery) {
        return delivery.getEnvelope().getDeliveryTag();
    }

    static void same(String what, Object actual, Object expected) {
        if (!Objects.deepEquals(actual, expected)) {
            throw new AssertionError(what + ": expected " + expected + ", got " + actual);
        }
    }
}

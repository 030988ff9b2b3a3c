package interop;

import static interop.Session.same;
import static interop.Session.text;
import static interop.Session.unique;

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.AMQP.BasicProperties;
import com.rabbitmq.client.AlreadyClosedException;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.GetResponse;
import com.rabbitmq.client.ShutdownSignalException;
import java.io.IOException;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.CompletableFuture;

/** Scenarios about exchanges, queues and bindings, and about the errors that close a channel. */
final class Topology {
    private Topology() {}

    static void register(Map<String, Main.Scenario> scenarios) {
        scenarios.put("declare_bind", Topology::declareBind);
        scenarios.put("channel_error", Topology::channelError);
    }

    private static void declareBind(String uri) throws Exception {
        try (Session session = new Session(uri)) {
            String queue = session.declare("declare-bind");
            route(session, queue, "direct", "red", "red", null);
            route(session, queue, "fanout", "", "anything", null);
            route(session, queue, "topic", "#.red", "very.very.red", null);
            Map<String, Object> arguments = new HashMap<>();
            arguments.put("x-match", "all");
            arguments.put("colour", "red");
            arguments.put("size", null); // present, whatever its value
            route(session, queue, "headers", "", "", arguments);
            same("server-named", session.channel.queueDeclare().getQueue().startsWith("amq.gen-"), true);
            session.channel.queueDelete(queue);
        }
    }

    private static void route(
            Session session, String queue, String kind, String bindingKey, String routingKey, Map<String, Object> arguments)
            throws Exception {
        Channel channel = session.channel;
        String exchange = unique(kind);
        channel.exchangeDeclare(exchange, kind, true);
        channel.exchangeDeclare(exchange, kind, true);
        channel.exchangeDeclarePassive(exchange);
        channel.queueBind(queue, exchange, bindingKey, arguments);
        BasicProperties properties =
                new BasicProperties.Builder().headers(Map.of("colour", "red", "size", 1)).build();
        channel.basicPublish(exchange, routingKey, properties, kind.getBytes());
        GetResponse message = session.get(queue);
        same("exchange", message.getEnvelope().getExchange(), exchange);
        same("routing key", message.getEnvelope().getRoutingKey(), routingKey);
        same("body", text(message.getBody()), kind);
        channel.queueUnbind(queue, exchange, bindingKey, arguments);
        channel.basicPublish(exchange, routingKey, properties, new byte[0]);
        same("routed after unbind", channel.basicGet(queue, true), null);
        channel.exchangeDelete(exchange);
    }

    private static void channelError(String uri) throws Exception {
        String absent = unique("absent");
        try (Session session = new Session(uri)) {
            String queue = session.declare("channel-error");
            fails(session, 404, "NOT_FOUND - no queue '" + absent + "' in vhost '/'",
                    other -> other.queueDeclarePassive(absent));
            fails(session, 404, "NOT_FOUND - no exchange '" + absent + "' in vhost '/'",
                    other -> other.basicPublish(absent, "key", null, new byte[0]));
            fails(session, 406, "inequivalent arg 'durable' for queue '" + queue + "'",
                    other -> other.queueDeclare(queue, false, false, false, null));
            fails(session, 406, "PRECONDITION_FAILED - unknown delivery tag 99", other -> other.basicAck(99, false));
            same("the first channel still works", session.ready(queue), 0);
            session.channel.queueDelete(queue);
        }
    }

    interface Step {
        void take(Channel channel) throws Exception;
    }

    static void fails(Session session, int code, String words, Step step) throws Exception {
        Channel other = session.connection.createChannel();
        CompletableFuture<ShutdownSignalException> closed = new CompletableFuture<>();
        other.addShutdownListener(closed::complete);
        try {
            step.take(other);
        } catch (IOException | AlreadyClosedException expected) {
            // A synchronous step also throws; the listener tells the code in either case.
        }
        AMQP.Channel.Close close = (AMQP.Channel.Close) closed.get().getReason();
        same(words, close.getReplyCode(), code);
        same(close.getReplyText(), close.getReplyText().contains(words), true);
    }
}

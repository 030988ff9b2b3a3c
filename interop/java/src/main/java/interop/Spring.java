package interop;

import static interop.Session.same;
import static interop.Session.text;
import static interop.Session.unique;

import java.net.URI;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import org.springframework.amqp.AmqpRejectAndDontRequeueException;
import org.springframework.amqp.core.BindingBuilder;
import org.springframework.amqp.core.Exchange;
import org.springframework.amqp.core.ExchangeBuilder;
import org.springframework.amqp.core.Message;
import org.springframework.amqp.core.MessageBuilder;
import org.springframework.amqp.core.MessageListener;
import org.springframework.amqp.core.Queue;
import org.springframework.amqp.core.QueueBuilder;
import org.springframework.amqp.core.ReturnedMessage;
import org.springframework.amqp.rabbit.connection.CachingConnectionFactory;
import org.springframework.amqp.rabbit.connection.CachingConnectionFactory.ConfirmType;
import org.springframework.amqp.rabbit.connection.Connection;
import org.springframework.amqp.rabbit.connection.ConnectionListener;
import org.springframework.amqp.rabbit.connection.CorrelationData;
import org.springframework.amqp.rabbit.core.RabbitAdmin;
import org.springframework.amqp.rabbit.core.RabbitTemplate;
import org.springframework.amqp.rabbit.listener.DirectMessageListenerContainer;
import org.springframework.amqp.rabbit.listener.SimpleMessageListenerContainer;

/** Runs the interop scenarios with Spring AMQP: {@code Spring URI [SCENARIO...]}, as {@link Main}. */
public final class Spring {
    private final CachingConnectionFactory connections;
    private final RabbitAdmin admin;
    private final RabbitTemplate template;

    private Spring(String uri) {
        connections = new CachingConnectionFactory(URI.create(uri));
        connections.setPublisherConfirmType(ConfirmType.CORRELATED);
        connections.setPublisherReturns(true);
        admin = new RabbitAdmin(connections);
        template = new RabbitTemplate(connections);
        template.setMandatory(true);
    }

    /** A scenario with a factory, an admin and a template of its own. */
    private interface Play {
        void play(Spring spring) throws Exception;
    }

    private static Main.Scenario with(Play scenario) {
        return uri -> {
            Spring spring = new Spring(uri);
            try {
                scenario.play(spring);
            } finally {
                spring.connections.destroy();
            }
        };
    }

    public static void main(String[] arguments) {
        Map<String, Main.Scenario> scenarios = new LinkedHashMap<>();
        scenarios.put("publish_confirms", with(Spring::publishConfirms));
        scenarios.put("mandatory_return", with(Spring::mandatoryReturn));
        scenarios.put("nack_requeue", with(Spring::nackRequeue));
        scenarios.put("reconnect", with(Spring::reconnect));
        scenarios.put("dead_letters", with(Spring::deadLetters));
        scenarios.put("direct_reply_to", with(Spring::directReplyTo));
        scenarios.put("transactions", with(Spring::transactions));
        scenarios.put("quorum_queue", with(Spring::quorumQueue));
        scenarios.put("delays", with(Spring::delays));
        Main.run(scenarios, arguments);
    }

    private String declare(String name) {
        return admin.declareQueue(QueueBuilder.durable(unique(name)).build());
    }

    private void publishConfirms() throws Exception {
        String queue = declare("publish-confirms");
        List<CorrelationData> all = new java.util.ArrayList<>();
        for (int number = 0; number < 500; number++) {
            CorrelationData correlation = new CorrelationData(String.valueOf(number));
            template.convertAndSend("", queue, String.valueOf(number), correlation);
            all.add(correlation);
        }
        for (CorrelationData correlation : all) {
            same("confirm of " + correlation.getId(), correlation.getFuture().get(20, TimeUnit.SECONDS).ack(), true);
        }
        same("ready", admin.getQueueInfo(queue).getMessageCount(), 500L);
        // In any order: the template takes another channel while a confirm is outstanding.
        java.util.Set<Object> received = new java.util.HashSet<>();
        for (int number = 0; number < 500; number++) {
            received.add(template.receiveAndConvert(queue));
        }
        same("different ones", received.size(), 500);
        admin.deleteQueue(queue);
    }

    private void mandatoryReturn() throws Exception {
        BlockingQueue<ReturnedMessage> returned = new LinkedBlockingQueue<>();
        template.setReturnsCallback(returned::add);
        CorrelationData correlation = new CorrelationData("m1");
        template.convertAndSend("amq.direct", unique("nowhere"), "back", correlation);
        same("confirm", correlation.getFuture().get(20, TimeUnit.SECONDS).ack(), true);
        same("the return comes before the confirm", correlation.getReturned() != null, true);
        ReturnedMessage message = returned.take();
        same("reply", message.getReplyCode() + message.getReplyText(), "312NO_ROUTE");
        same("body", text(message.getMessage().getBody()), "back");
    }

    /** A container that listens as a Spring application does. */
    private DirectMessageListenerContainer listen(String queue, MessageListener listener) {
        DirectMessageListenerContainer container = new DirectMessageListenerContainer(connections);
        container.setQueueNames(queue);
        container.setPrefetchCount(1);
        container.setErrorHandler(problem -> {
            throw problem instanceof RuntimeException runtime ? runtime : new IllegalStateException(problem);
        });
        container.setMessageListener(listener);
        container.afterPropertiesSet();
        container.start();
        return container;
    }

    private void nackRequeue() throws Exception {
        String queue = declare("nack-requeue");
        template.convertAndSend("", queue, "again");
        BlockingQueue<Boolean> seen = new LinkedBlockingQueue<>();
        DirectMessageListenerContainer container = listen(queue, message -> {
            seen.add(message.getMessageProperties().isRedelivered());
            if (!message.getMessageProperties().isRedelivered()) {
                throw new IllegalStateException("not yet"); // Spring rejects it, with requeue
            }
        });
        same("redelivered", List.of(seen.take(), seen.take()), List.of(false, true));
        container.stop();
        same("left", admin.getQueueInfo(queue).getMessageCount(), 0L);
        admin.deleteQueue(queue);
    }

    private void reconnect() throws Exception {
        String queue = declare("reconnect");
        Queue exclusive = new Queue(unique("exclusive"), false, true, true);
        admin.declareQueue(exclusive);
        Semaphore opened = new Semaphore(0);
        SimpleMessageListenerContainer container = new SimpleMessageListenerContainer(connections);
        BlockingQueue<String> heard = new LinkedBlockingQueue<>();
        container.setQueueNames(queue);
        container.setRecoveryInterval(100);
        container.setMessageListener(message -> heard.add(text(message.getBody())));
        container.afterPropertiesSet();
        container.start();
        template.convertAndSend("", queue, "before");
        same("before", heard.take(), "before");
        connections.addConnectionListener(new ConnectionListener() {
            @Override
            public void onCreate(Connection connection) {
                opened.release();
            }
        });
        opened.drainPermits(); // the listener was told of the connection that is open
        ((com.rabbitmq.client.impl.AMQConnection) connections.createConnection().getDelegate()).abort(320, "cut");
        opened.acquire();
        template.convertAndSend("", queue, "after");
        while (!heard.take().equals("after")) {
            // The first one again: its ack was cut off.
        }
        container.stop();
        admin.declareQueue(exclusive); // free again: it went with its connection
        admin.deleteQueue(queue);
    }

    private void deadLetters() throws Exception {
        String dead = declare("dead");
        String queue = admin.declareQueue(
                QueueBuilder.durable(unique("dying")).deadLetterExchange("").deadLetterRoutingKey(dead).build());
        template.convertAndSend("", queue, "poison");
        DirectMessageListenerContainer container = listen(queue, message -> {
            throw new AmqpRejectAndDontRequeueException("no such customer");
        });
        Message message = template.receive(dead, 20_000);
        Map<String, ?> death = message.getMessageProperties().getXDeathHeader().get(0);
        same("x-death", death.get("reason") + " " + death.get("queue") + " " + death.get("count"), "rejected " + queue + " 1");
        container.stop();
        admin.deleteQueue(queue);
        admin.deleteQueue(dead);
    }

    private void directReplyTo() throws Exception {
        String queue = declare("rpc");
        RabbitTemplate server = new RabbitTemplate(connections);
        DirectMessageListenerContainer container = listen(queue, question -> {
            var properties = question.getMessageProperties();
            same("reply-to", properties.getReplyTo().startsWith("amq.rabbitmq.reply-to."), true);
            server.send("", properties.getReplyTo(), MessageBuilder.withBody("4".getBytes())
                    .setCorrelationId(properties.getCorrelationId()).build());
        });
        Message answer = template.sendAndReceive("", queue, MessageBuilder.withBody("2+2".getBytes()).build());
        same("answer", text(answer.getBody()), "4");
        container.stop();
        admin.deleteQueue(queue);
    }

    private void transactions() throws Exception {
        // Spring asks for one or the other of a connection factory.
        connections.setPublisherConfirmType(ConfirmType.NONE);
        connections.resetConnection();
        String queue = declare("tx");
        RabbitTemplate transacted = new RabbitTemplate(connections);
        transacted.setChannelTransacted(true);
        transacted.execute(channel -> {
            channel.basicPublish("", queue, null, "rolled back".getBytes());
            channel.txRollback();
            channel.basicPublish("", queue, null, "new".getBytes());
            return channel.txCommit();
        });
        same("after the commit", template.receiveAndConvert(queue), "new".getBytes());
        same("nothing more", template.receive(queue), null);
        admin.deleteQueue(queue);
    }

    private void quorumQueue() throws Exception {
        String dead = declare("quorum-dead");
        String queue = admin.declareQueue(QueueBuilder.durable(unique("quorum"))
                .quorum().deliveryLimit(2).deadLetterExchange("").deadLetterRoutingKey(dead).build());
        template.convertAndSend("", queue, "poison");
        BlockingQueue<Long> counts = new LinkedBlockingQueue<>();
        DirectMessageListenerContainer container = listen(queue, message -> {
            Number count = message.getMessageProperties().getHeader("x-delivery-count");
            counts.add(count == null ? 0 : count.longValue());
            throw new IllegalStateException("always");
        });
        same("x-delivery-count", List.of(counts.take(), counts.take(), counts.take()), List.of(0L, 1L, 2L));
        Message message = template.receive(dead, 20_000);
        same("x-death", message.getMessageProperties().getXDeathHeader().get(0).get("reason"), "delivery_limit");
        container.stop();
        admin.deleteQueue(queue);
        admin.deleteQueue(dead);
    }

    private void delays() throws Exception {
        Queue queue = QueueBuilder.durable(unique("delayed")).build();
        Exchange source = ExchangeBuilder.directExchange(unique("delayed-exchange")).delayed().build();
        admin.declareQueue(queue);
        admin.declareExchange(source);
        admin.declareBinding(BindingBuilder.bind(queue).to(source).with("key").noargs());
        template.setMandatory(false);
        for (long delay : new long[] {400, 200, 0}) {
            template.convertAndSend(source.getName(), "key", String.valueOf(delay), message -> {
                message.getMessageProperties().setDelayLong(delay);
                return message;
            });
        }
        for (long delay : new long[] {0, 200, 400}) {
            Message message = template.receive(queue.getName(), 20_000);
            same("order", text(message.getBody()), String.valueOf(delay));
        }
        admin.deleteExchange(source.getName());
        admin.deleteQueue(queue.getName());
    }
}

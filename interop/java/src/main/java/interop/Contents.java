package interop;

import static interop.Session.same;
import static interop.Session.take;
import static interop.Session.text;

import com.rabbitmq.client.AMQP.BasicProperties;
import com.rabbitmq.client.Delivery;
import com.rabbitmq.client.GetResponse;
import com.rabbitmq.client.MessageProperties;
import com.rabbitmq.client.impl.LongStringHelper;
import java.math.BigDecimal;
import java.util.Arrays;
import java.util.Date;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;

/** Scenarios about bodies, properties and headers coming back as they were sent. */
final class Contents {
    private Contents() {}

    static void register(Map<String, Main.Scenario> scenarios) {
        scenarios.put("large_body", Contents::largeBody);
        scenarios.put("empty_body", Contents::emptyBody);
        scenarios.put("header_types", Contents::headerTypes);
        scenarios.put("properties", Contents::properties);
    }

    private static void largeBody(String uri) throws Exception {
        byte[] body = new byte[10 << 20];
        new Random().nextBytes(body);
        try (Session session = new Session(uri)) {
            String queue = session.declare("large-body");
            session.channel.confirmSelect();
            session.publish(queue, MessageProperties.PERSISTENT_BASIC, body);
            session.channel.waitForConfirmsOrDie();
            same("all of 10 MiB", Arrays.equals(session.get(queue).getBody(), body), true);
            session.channel.queueDelete(queue);
        }
    }

    private static void emptyBody(String uri) throws Exception {
        try (Session session = new Session(uri)) {
            String queue = session.declare("empty-body");
            session.publish(queue, new BasicProperties.Builder().messageId("empty").build(), new byte[0]);
            session.publish(queue, "next");
            List<Delivery> taken = take(session.consume(queue), 2);
            same("empty body", taken.get(0).getBody().length, 0);
            same("its properties", taken.get(0).getProperties().getMessageId(), "empty");
            same("next body", text(taken.get(1).getBody()), "next");
            session.channel.queueDelete(queue);
        }
    }

    private static void headerTypes(String uri) throws Exception {
        // Every type has its own tag on the wire, and comes back as the same Java type only under that tag.
        Map<String, Object> headers = new HashMap<>();
        headers.put("boolean", true);
        headers.put("byte", Byte.MIN_VALUE);
        headers.put("short", Short.MIN_VALUE);
        headers.put("int", Integer.MIN_VALUE);
        headers.put("long", Long.MIN_VALUE);
        headers.put("small long", 7L);
        headers.put("float", 0.1f);
        headers.put("double", 0.1);
        headers.put("decimal", new BigDecimal("3.14"));
        headers.put("string", LongStringHelper.asLongString("grün 🐇"));
        headers.put("empty string", LongStringHelper.asLongString(""));
        headers.put("bytes", new byte[] {0, -1, -2});
        headers.put("timestamp", new Date(1000L << 31));
        headers.put("void", null);
        headers.put("array", Arrays.asList(1, LongStringHelper.asLongString("two"), null, List.of(false), Map.of("five", 5L)));
        headers.put("empty array", List.of());
        headers.put("table", Map.of("deep", Map.of("deeper", Map.of("deepest", List.of(0.25)))));
        headers.put("empty table", Map.of());
        try (Session session = new Session(uri)) {
            String queue = session.declare("header-types");
            session.publish(queue, new BasicProperties.Builder().headers(headers).build(), new byte[0]);
            Map<String, Object> received = session.get(queue).getProps().getHeaders();
            for (Map.Entry<String, Object> header : headers.entrySet()) {
                same(header.getKey(), received.get(header.getKey()), header.getValue());
            }
            same("names", received.keySet(), headers.keySet());
            session.channel.queueDelete(queue);
        }
    }

    private static void properties(String uri) throws Exception {
        BasicProperties sent = new BasicProperties.Builder()
                .contentType("text/plain")
                .contentEncoding("utf-8")
                .headers(Map.of("k", LongStringHelper.asLongString("v")))
                .deliveryMode(2)
                .priority(9)
                .correlationId("correlation")
                .replyTo("answers")
                .expiration("60000")
                .messageId("message")
                .timestamp(new Date(1_700_000_000_000L))
                .type("kind")
                .userId("guest")
                .appId("application")
                .clusterId("cluster")
                .build();
        try (Session session = new Session(uri)) {
            String queue = session.declare("properties");
            session.publish(queue, sent, "all".getBytes());
            session.publish(queue, null, "none".getBytes());
            GetResponse all = session.get(queue);
            same("all fourteen properties", all.getProps(), sent);
            same("no property", session.get(queue).getProps(), new BasicProperties());
            session.channel.queueDelete(queue);
        }
    }
}

// Runs interop scenarios with librabbitmq: `scenarios URI [SCENARIO...]` prints one JSON line for each. A scenario plays in
// a process of its own: whatever fails ends it with a line that says what.

#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SCENARIO_SECONDS = 30, CHANNEL = 1 };

static char *uri_text;
static amqp_connection_state_t connection;

static void fail(const char *what, const char *found) {
    printf("%s: got %s", what, found);
    fflush(stdout);
    _exit(1);
}

static void same(const char *what, long actual, long expected) {
    if (actual != expected) {
        char text[64];
        snprintf(text, sizeof text, "%ld instead of %ld", actual, expected);
        fail(what, text);
    }
}

static void same_bytes(const char *what, amqp_bytes_t actual, const char *expected) {
    if (actual.len != strlen(expected) || memcmp(actual.bytes, expected, actual.len) != 0) {
        char text[256];
        snprintf(text, sizeof text, "'%.*s' instead of '%s'", (int)actual.len, (char *)actual.bytes, expected);
        fail(what, text);
    }
}

static amqp_bytes_t bytes(const char *text) { return amqp_cstring_bytes(text); }

// The answer of the last call must be the one it asks for.
static void answered(const char *what) {
    amqp_rpc_reply_t reply = amqp_get_rpc_reply(connection);
    if (reply.reply_type != AMQP_RESPONSE_NORMAL) {
        fail(what, "no normal answer");
    }
}

static void log_in(void) {
    struct amqp_connection_info info;
    char *copy = strdup(uri_text);
    same("the address", amqp_parse_url(copy, &info), AMQP_STATUS_OK);
    connection = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(connection);
    same("connected", amqp_socket_open(socket, info.host, info.port), AMQP_STATUS_OK);
    amqp_rpc_reply_t reply =
        amqp_login(connection, info.vhost, 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, info.user, info.password);
    same("login", reply.reply_type, AMQP_RESPONSE_NORMAL);
    amqp_channel_open(connection, CHANNEL);
    answered("channel.open");
}

static void log_out(void) {
    same("closed", amqp_connection_close(connection, AMQP_REPLY_SUCCESS).reply_type, AMQP_RESPONSE_NORMAL);
    amqp_destroy_connection(connection);
}

static const char *declare(const char *name, amqp_table_t arguments) {
    static char names[8][64];
    static int used;
    char *queue = names[used++ % 8];
    snprintf(queue, sizeof names[0], "interop-c-%d-%s", (int)getpid(), name);
    amqp_queue_declare(connection, CHANNEL, bytes(queue), 0, 1, 0, 0, arguments);
    answered("queue.declare");
    return queue;
}

static long ready(const char *queue) {
    amqp_queue_declare_ok_t *ok = amqp_queue_declare(connection, CHANNEL, bytes(queue), 1, 1, 0, 0, amqp_empty_table);
    answered("queue.declare passive");
    return ok->message_count;
}

static void delete(const char *queue) {
    amqp_queue_delete(connection, CHANNEL, bytes(queue), 0, 0);
    answered("queue.delete");
}

static void publish(const char *exchange, const char *key, int mandatory, amqp_table_t headers, const char *body) {
    amqp_basic_properties_t properties = {0};
    properties._flags = AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_HEADERS_FLAG | AMQP_BASIC_MESSAGE_ID_FLAG;
    properties.delivery_mode = AMQP_DELIVERY_PERSISTENT;
    properties.headers = headers;
    properties.message_id = bytes("m1");
    same("published",
         amqp_basic_publish(connection, CHANNEL, bytes(exchange), bytes(key), mandatory, 0, &properties, bytes(body)),
         AMQP_STATUS_OK);
}

// The next frame, which must be this method.
static amqp_method_t next_method(amqp_method_number_t id, const char *what) {
    amqp_frame_t frame;
    amqp_maybe_release_buffers(connection);
    same(what, amqp_simple_wait_frame(connection, &frame), AMQP_STATUS_OK);
    same(what, frame.frame_type, AMQP_FRAME_METHOD);
    same(what, frame.payload.method.id, id);
    return frame.payload.method;
}

// Waits until everything up to this tag is confirmed.
static void confirmed(uint64_t last) {
    for (uint64_t tag = 0; tag < last;) {
        amqp_basic_ack_t *ack = next_method(AMQP_BASIC_ACK_METHOD, "basic.ack").decoded;
        same("a single confirm is of the next message", ack->multiple || ack->delivery_tag == tag + 1, 1);
        tag = ack->delivery_tag;
    }
}

static void consume(const char *queue) {
    amqp_basic_consume(connection, CHANNEL, bytes(queue), amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
    answered("basic.consume");
}

static amqp_envelope_t delivery(const char *body, int redelivered) {
    amqp_envelope_t envelope;
    struct timeval patience = {20, 0};
    amqp_maybe_release_buffers(connection);
    same("a delivery", amqp_consume_message(connection, &envelope, &patience, 0).reply_type, AMQP_RESPONSE_NORMAL);
    same_bytes("body", envelope.message.body, body);
    same(body, envelope.redelivered, redelivered);
    return envelope;
}

static void get(const char *queue, const char *body) {
    amqp_rpc_reply_t reply = amqp_basic_get(connection, CHANNEL, bytes(queue), 1);
    same("basic.get", reply.reply.id, AMQP_BASIC_GET_OK_METHOD);
    amqp_message_t message;
    same("a message", amqp_read_message(connection, CHANNEL, &message, 0).reply_type, AMQP_RESPONSE_NORMAL);
    same_bytes("body", message.body, body);
    amqp_destroy_message(&message);
}

static amqp_table_entry_t text_entry(const char *key, const char *value) {
    amqp_table_entry_t entry = {bytes(key), {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = bytes(value)}};
    return entry;
}

static amqp_table_entry_t number_entry(const char *key, int64_t value) {
    amqp_table_entry_t entry = {bytes(key), {.kind = AMQP_FIELD_KIND_I64, .value.i64 = value}};
    return entry;
}

// The value of a header, which must be there.
static amqp_field_value_t *entry(amqp_table_t *table, const char *key) {
    for (int number = 0; number < table->num_entries; number++) {
        amqp_bytes_t found = table->entries[number].key;
        if (found.len == strlen(key) && memcmp(found.bytes, key, found.len) == 0) {
            return &table->entries[number].value;
        }
    }
    fail(key, "nothing");
    return NULL;
}

static void publish_confirms(void) {
    const char *queue = declare("publish-confirms", amqp_empty_table);
    amqp_confirm_select(connection, CHANNEL);
    answered("confirm.select");
    for (int number = 0; number < 1000; number++) {
        publish("", queue, 0, amqp_empty_table, "body");
    }
    confirmed(1000);
    same("ready", ready(queue), 1000);
    delete(queue);
}

static void mandatory_return(void) {
    amqp_confirm_select(connection, CHANNEL);
    answered("confirm.select");
    publish("amq.direct", "nowhere-at-all", 1, amqp_empty_table, "back");
    amqp_basic_return_t *returned = next_method(AMQP_BASIC_RETURN_METHOD, "basic.return comes first").decoded;
    same("code", returned->reply_code, 312);
    same_bytes("text", returned->reply_text, "NO_ROUTE");
    amqp_message_t message;
    same("content", amqp_read_message(connection, CHANNEL, &message, 0).reply_type, AMQP_RESPONSE_NORMAL);
    same_bytes("body", message.body, "back");
    same_bytes("message id", message.properties.message_id, "m1");
    amqp_destroy_message(&message);
    confirmed(1);
}

static void nack_requeue(void) {
    const char *queue = declare("nack-requeue", amqp_empty_table);
    publish("", queue, 0, amqp_empty_table, "a");
    publish("", queue, 0, amqp_empty_table, "b");
    amqp_basic_qos(connection, CHANNEL, 0, 1, 0);
    answered("basic.qos");
    consume(queue);
    amqp_basic_nack(connection, CHANNEL, delivery("a", 0).delivery_tag, 0, 1);
    amqp_basic_reject(connection, CHANNEL, delivery("a", 1).delivery_tag, 0);
    delivery("b", 0);
    amqp_basic_recover(connection, CHANNEL, 1);
    answered("basic.recover");
    amqp_basic_ack(connection, CHANNEL, delivery("b", 1).delivery_tag, 0);
    same("ready at the end", ready(queue), 0);
    delete(queue);
}

static void transactions(void) {
    const char *queue = declare("tx", amqp_empty_table);
    amqp_tx_select(connection, CHANNEL);
    answered("tx.select");
    publish("", queue, 0, amqp_empty_table, "rolled back");
    amqp_tx_rollback(connection, CHANNEL);
    answered("tx.rollback");
    publish("", queue, 0, amqp_empty_table, "new");
    same("ready before the commit", ready(queue), 0);
    amqp_tx_commit(connection, CHANNEL);
    answered("tx.commit");
    same("ready after the commit", ready(queue), 1);
    get(queue, "new");
    delete(queue);
}

static void header_types(void) {
    const char *queue = declare("header-types", amqp_empty_table);
    amqp_table_entry_t inner[] = {text_entry("deep", "er")};
    amqp_field_value_t list[] = {
        {.kind = AMQP_FIELD_KIND_I32, .value.i32 = -1},
        {.kind = AMQP_FIELD_KIND_VOID},
    };
    // In the order of the alphabet, as the broker may sort them.
    amqp_table_entry_t sent[] = {
        {bytes("array"), {.kind = AMQP_FIELD_KIND_ARRAY, .value.array = {2, list}}},
        {bytes("boolean"), {.kind = AMQP_FIELD_KIND_BOOLEAN, .value.boolean = 1}},
        {bytes("bytes"), {.kind = AMQP_FIELD_KIND_BYTES, .value.bytes = {3, "\0\xff\xfe"}}},
        {bytes("decimal"), {.kind = AMQP_FIELD_KIND_DECIMAL, .value.decimal = {2, 314}}},
        {bytes("f32"), {.kind = AMQP_FIELD_KIND_F32, .value.f32 = 0.5f}},
        {bytes("f64"), {.kind = AMQP_FIELD_KIND_F64, .value.f64 = 0.1}},
        {bytes("i16"), {.kind = AMQP_FIELD_KIND_I16, .value.i16 = -32768}},
        {bytes("i32"), {.kind = AMQP_FIELD_KIND_I32, .value.i32 = -2147483647}},
        {bytes("i64"), {.kind = AMQP_FIELD_KIND_I64, .value.i64 = INT64_MIN}},
        {bytes("i8"), {.kind = AMQP_FIELD_KIND_I8, .value.i8 = -128}},
        {bytes("table"), {.kind = AMQP_FIELD_KIND_TABLE, .value.table = {1, inner}}},
        text_entry("text", "grün"),
        {bytes("timestamp"), {.kind = AMQP_FIELD_KIND_TIMESTAMP, .value.u64 = 1ULL << 31}},
        {bytes("u8"), {.kind = AMQP_FIELD_KIND_U8, .value.u8 = 255}},
        {bytes("void"), {.kind = AMQP_FIELD_KIND_VOID}},
    };
    int count = sizeof sent / sizeof *sent;
    amqp_table_t headers = {count, sent};
    publish("", queue, 0, headers, "");
    amqp_rpc_reply_t reply = amqp_basic_get(connection, CHANNEL, bytes(queue), 1);
    same("basic.get", reply.reply.id, AMQP_BASIC_GET_OK_METHOD);
    amqp_message_t message;
    same("a message", amqp_read_message(connection, CHANNEL, &message, 0).reply_type, AMQP_RESPONSE_NORMAL);
    same("count", message.properties.headers.num_entries, count);
    for (int number = 0; number < count; number++) {
        amqp_table_entry_t *found = &message.properties.headers.entries[number];
        char key[32];
        snprintf(key, sizeof key, "%.*s", (int)sent[number].key.len, (char *)sent[number].key.bytes);
        same_bytes("key", found->key, key);
        same(key, found->value.kind, sent[number].value.kind);
        if (found->value.kind == AMQP_FIELD_KIND_I64) {
            same(key, found->value.value.i64 == INT64_MIN, 1);
        } else if (found->value.kind == AMQP_FIELD_KIND_F64) {
            same(key, found->value.value.f64 == 0.1, 1);
        } else if (found->value.kind == AMQP_FIELD_KIND_ARRAY) {
            same(key, found->value.value.array.num_entries, 2);
        }
    }
    amqp_destroy_message(&message);
    delete(queue);
}

static void dead_letters(void) {
    const char *dead = declare("dead", amqp_empty_table);
    amqp_table_entry_t route[] = {text_entry("x-dead-letter-exchange", ""), text_entry("x-dead-letter-routing-key", dead)};
    const char *queue = declare("dying", (amqp_table_t){2, route});
    publish("", queue, 0, amqp_empty_table, "refused");
    consume(queue);
    amqp_basic_reject(connection, CHANNEL, delivery("refused", 0).delivery_tag, 0);
    consume(dead);
    amqp_envelope_t letter = delivery("refused", 0);
    amqp_field_value_t *deaths = entry(&letter.message.properties.headers, "x-death");
    same("x-death", deaths->kind, AMQP_FIELD_KIND_ARRAY);
    amqp_table_t *death = &deaths->value.array.entries[0].value.table;
    same_bytes("reason", entry(death, "reason")->value.bytes, "rejected");
    same_bytes("queue", entry(death, "queue")->value.bytes, queue);
    delete(queue);
    delete(dead);
}

static void settle(void) {
    const char *queue = declare("settled", amqp_empty_table), *target = declare("settled-target", amqp_empty_table);
    publish("", queue, 0, amqp_empty_table, "retried");
    publish("", queue, 0, amqp_empty_table, "answered");
    consume(queue);
    int64_t retried = delivery("retried", 0).delivery_tag, answer = delivery("answered", 0).delivery_tag;
    amqp_table_entry_t retry[] = {
        text_entry("x-op", "retry"), number_entry("x-delivery-tag", retried), number_entry("x-delay", 100)};
    publish("amq.settle", "", 0, (amqp_table_t){3, retry}, "");
    amqp_table_entry_t both[] = {
        text_entry("x-op", "ack-and-publish"), number_entry("x-delivery-tag", answer), text_entry("x-exchange", ""),
        text_entry("x-routing-key", target)};
    publish("amq.settle", "", 0, (amqp_table_t){4, both}, "42");
    amqp_envelope_t again = delivery("retried", 1);
    same("x-delivery-count", entry(&again.message.properties.headers, "x-delivery-count")->value.i64, 1);
    amqp_basic_ack(connection, CHANNEL, again.delivery_tag, 0);
    same("left", ready(queue), 0);
    get(target, "42");
    delete(queue);
    delete(target);
}

static const struct {
    const char *name;
    void (*play)(void);
} SCENARIOS[] = {
    {"publish_confirms", publish_confirms}, {"mandatory_return", mandatory_return}, {"nack_requeue", nack_requeue},
    {"transactions", transactions},         {"header_types", header_types},         {"dead_letters", dead_letters},
    {"settle", settle},
};

// Prints the line of a scenario, which a child plays; its output is the detail.
static int report(size_t which) {
    int ends[2];
    struct timespec from, until;
    clock_gettime(CLOCK_MONOTONIC, &from);
    fflush(stdout);
    if (pipe(ends) != 0) {
        return 1;
    }
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        alarm(SCENARIO_SECONDS); // a broker that stays silent fails the scenario
        log_in();
        SCENARIOS[which].play();
        log_out();
        _exit(0);
    }
    close(ends[1]);
    char detail[512] = {0};
    size_t length = 0;
    for (ssize_t count; (count = read(ends[0], detail + length, sizeof detail - 1 - length)) > 0;) {
        length += (size_t)count;
    }
    close(ends[0]);
    int status;
    waitpid(child, &status, 0);
    int ok = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (!ok && length == 0) {
        snprintf(detail, sizeof detail, "ended by signal %d", WTERMSIG(status));
    }
    for (char *it = detail; *it; it++) {
        if (*it == '"' || *it == '\\' || (unsigned char)*it < ' ' || (unsigned char)*it > '~') {
            *it = '?';
        }
    }
    clock_gettime(CLOCK_MONOTONIC, &until);
    double seconds = (double)(until.tv_sec - from.tv_sec) + (double)(until.tv_nsec - from.tv_nsec) / 1e9;
    printf("{\"scenario\": \"%s\", \"ok\": %s, \"seconds\": %.3f, \"detail\": \"%s\"}\n", SCENARIOS[which].name,
           ok ? "true" : "false", seconds, detail);
    return ok ? 0 : 1;
}

int main(int count, char **arguments) {
    if (count < 2) {
        fprintf(stderr, "usage: scenarios amqp://USER:PASSWORD@HOST:PORT [SCENARIO...]\n");
        return 2;
    }
    uri_text = arguments[1];
    int failed = 0;
    for (size_t which = 0; which < sizeof SCENARIOS / sizeof *SCENARIOS; which++) {
        int wanted = count == 2;
        for (int number = 2; number < count; number++) {
            wanted |= strcmp(arguments[number], SCENARIOS[which].name) == 0;
        }
        if (wanted) {
            failed |= report(which);
        }
    }
    return failed;
}

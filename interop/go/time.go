package main

import (
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func expiry(uri string) {
	connection, channel := connectConfirming(uri)
	defer connection.Close()
	queue := declareWith(channel, "ttl", amqp.Table{"x-message-ttl": 60000})
	for _, it := range [][2]string{{"short", "50"}, {"long", "70000"}, {"of the queue", ""}} {
		message := amqp.Publishing{Body: []byte(it[0]), Expiration: it[1]}
		same("confirm", confirmed(channel, "", queue, message), true)
	}
	soon("the short one expired", func() bool { return ready(channel, queue) == 2 })
	same("left", bodies(channel, queue), []string{"long", "of the queue"})
	refuses(connection, 406, "invalid expiration", func(other *amqp.Channel) {
		publish(other, "", queue, amqp.Publishing{Expiration: "soon"})
	})
	remove(channel, queue)
}

func quorumQueue(uri string) {
	connection, channel := connectConfirming(uri)
	defer connection.Close()
	dead := declare(channel, "quorum-dead")
	queue := declareWith(channel, "quorum", amqp.Table{
		"x-queue-type": "quorum", "x-delivery-limit": 2, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead,
	})
	send(channel, queue, "poison")
	deliveries := consume(channel, queue)
	for _, count := range []any{nil, int64(1), int64(2)} {
		delivery := take(deliveries, 1)[0]
		same("x-delivery-count", delivery.Headers["x-delivery-count"], count)
		must(delivery.Reject(true))
	}
	soon("the poison message is dead-lettered", func() bool { return ready(channel, dead) == 1 })
	death := get(channel, dead).Headers["x-death"].([]any)[0].(amqp.Table)
	same("x-death", []any{death["reason"], death["queue"]}, []any{"delivery_limit", queue})
	refuses(connection, 406, "invalid property 'non-durable'", func(other *amqp.Channel) {
		_, _ = other.QueueDeclare(unique("q"), false, false, false, false, amqp.Table{"x-queue-type": "quorum"})
	})
	remove(channel, queue)
	remove(channel, dead)
}

func delays(uri string) {
	connection, channel := connectConfirming(uri)
	defer connection.Close()
	queue, source := declare(channel, "delayed"), unique("delayed-exchange")
	must(channel.ExchangeDeclare(source, "x-delayed-message", true, false, false, false, amqp.Table{"x-delayed-type": "fanout"}))
	must(channel.QueueBind(queue, "", source, false, nil))
	for _, it := range []struct {
		body, exchange, key string
		headers             amqp.Table
	}{
		{"fourth", "", queue, amqp.Table{"x-opt-delivery-time": time.Now().Add(2 * time.Second)}},
		{"third", source, "", amqp.Table{"x-delay": int32(600)}},
		{"second", "", queue, amqp.Table{"x-opt-delivery-delay": int64(300)}},
		{"first", source, "", amqp.Table{"x-delay": int32(-1)}},
	} {
		message := amqp.Publishing{Body: []byte(it.body), Headers: it.headers, DeliveryMode: amqp.Persistent}
		same("confirm", confirmed(channel, it.exchange, it.key, message), true)
	}
	same("the one without a delay is there", ready(channel, queue), 1)
	soon("all came", func() bool { return ready(channel, queue) == 4 })
	same("order", bodies(channel, queue), []string{"first", "second", "third", "fourth"})
	must(channel.ExchangeDelete(source, false, false))
	remove(channel, queue)
}

func delayedRetry(uri string) {
	connection, channel := connectConfirming(uri)
	defer connection.Close()
	queue := declareWith(channel, "retried", amqp.Table{"x-delayed-retry-type": "all", "x-delayed-retry-min": 200})
	send(channel, queue, "again")
	send(channel, queue, "behind")
	deliveries := consume(channel, queue)
	must(take(deliveries, 1)[0].Nack(false, true))
	for _, expected := range []struct {
		body        string
		redelivered bool
	}{{"behind", false}, {"again", true}} {
		delivery := take(deliveries, 1)[0]
		same("body", string(delivery.Body), expected.body)
		same("redelivered", delivery.Redelivered, expected.redelivered)
		must(delivery.Ack(false))
	}
	remove(channel, queue)
}

func retryUntilDead(uri string) {
	connection, channel := connectConfirming(uri)
	defer connection.Close()
	dead := declare(channel, "given-up")
	queue := declareWith(channel, "scheduled", amqp.Table{
		"x-delayed-retry-type": "failed", "x-delayed-retry-schedule": []any{50, 150}, "x-delivery-limit": 3,
		"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead,
	})
	send(channel, queue, "poison")
	deliveries := consume(channel, queue)
	before := time.Now()
	for _, it := range []struct {
		count any
		wait  time.Duration
	}{{nil, 0}, {int64(1), 50}, {int64(2), 150}, {int64(3), 150}} {
		delivery := take(deliveries, 1)[0]
		same("x-delivery-count", delivery.Headers["x-delivery-count"], it.count)
		same("not before its time", time.Since(before) >= it.wait*time.Millisecond, true)
		before = time.Now()
		must(delivery.Reject(true))
	}
	soon("given up", func() bool { return ready(channel, dead) == 1 })
	remove(channel, queue)
	remove(channel, dead)
}

func consumerTimeout(uri string) {
	connection, channel := connectConfirming(uri)
	defer connection.Close()
	strict := declareWith(channel, "strict", amqp.Table{"x-consumer-timeout": 200})
	send(channel, strict, "held")
	refuses(connection, 406, "timed out. Timeout value used: 200 ms", func(other *amqp.Channel) { consume(other, strict) })
	same("it went back", bodies(channel, strict), []string{"held"})
	// A visibility timeout: only the message goes back, and the consumer goes on.
	lenient := declareWith(channel, "lenient", amqp.Table{"x-consumer-timeout": 200, "x-consumer-timeout-action": "requeue"})
	send(channel, lenient, "seen twice")
	taken := take(consume(channel, lenient), 2)
	same("redelivered", []bool{taken[0].Redelivered, taken[1].Redelivered}, []bool{false, true})
	must(taken[0].Ack(false)) // too late, and forgiven
	must(taken[1].Ack(false))
	same("left", ready(channel, lenient), 0)
	remove(channel, strict)
	remove(channel, lenient)
}

func settle(uri string) {
	connection, channel := connectConfirming(uri)
	defer connection.Close()
	target, refused := declare(channel, "settled-target"), declare(channel, "settled-refused")
	queue := declareWith(channel, "settled", amqp.Table{
		"x-consumer-timeout": 1500, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": refused,
	})
	for _, body := range []string{"retried", "answered", "rejected", "extended"} {
		send(channel, queue, body)
	}
	deliveries := consume(channel, queue)
	taken := take(deliveries, 4)
	order := func(delivery amqp.Delivery, headers amqp.Table) {
		headers["x-delivery-tag"] = int64(delivery.DeliveryTag)
		message := amqp.Publishing{Headers: headers, Body: []byte("42"), DeliveryMode: amqp.Persistent}
		same("confirm", confirmed(channel, "amq.settle", "", message), true)
	}
	order(taken[0], amqp.Table{"x-op": "retry", "x-delay": 100})
	order(taken[1], amqp.Table{"x-op": "ack-and-publish", "x-exchange": "", "x-routing-key": target})
	order(taken[2], amqp.Table{"x-op": "reject", "x-reason": "no such customer", "x-annotations": amqp.Table{"customer": 7}})
	order(taken[3], amqp.Table{"x-op": "extend", "x-timeout": 60000})
	same("published with the ack", bodies(channel, target), []string{"42"})
	soon("the rejected one is dead-lettered", func() bool { return ready(channel, refused) == 1 })
	headers := get(channel, refused).Headers
	same("why", []any{headers["x-reason"], headers["customer"]}, []any{"no such customer", int32(7)})
	again := take(deliveries, 1)[0]
	same("the retry", []any{string(again.Body), again.Headers["x-delivery-count"]}, []any{"retried", int64(1)})
	must(again.Ack(false))
	// Longer than the queue allows: without the extension the channel would be closed.
	time.Sleep(2 * time.Second)
	must(taken[3].Ack(false))
	same("left", ready(channel, queue), 0)
	refuses(connection, 406, "", func(other *amqp.Channel) {
		publish(other, "amq.settle", "", amqp.Publishing{Headers: amqp.Table{"x-op": "retry", "x-delivery-tag": 99}})
	})
	for _, name := range []string{queue, target, refused} {
		remove(channel, name)
	}
}

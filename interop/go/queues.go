package main

import (
	"fmt"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// A channel with confirms, on a connection of its own.
func connectConfirming(uri string) (*amqp.Connection, *amqp.Channel) {
	connection, channel := connect(uri)
	must(channel.Confirm(false))
	return connection, channel
}

func declareWith(channel *amqp.Channel, name string, arguments amqp.Table) string {
	return check(channel.QueueDeclare(unique(name), true, false, false, false, arguments)).Name
}

// Publishes and waits for the confirm; tells whether it was an ack.
func confirmed(channel *amqp.Channel, exchange, key string, message amqp.Publishing) bool {
	return check(channel.PublishWithDeferredConfirm(exchange, key, false, false, message)).Wait()
}

func send(channel *amqp.Channel, queue, body string) {
	same("confirm", confirmed(channel, "", queue, amqp.Publishing{Body: []byte(body), DeliveryMode: amqp.Persistent}), true)
}

// Everything that waits in a queue, taken out of it.
func bodies(channel *amqp.Channel, queue string) []string {
	found := []string{}
	for {
		delivery, ok, err := channel.Get(queue, true)
		must(err)
		if !ok {
			return found
		}
		found = append(found, string(delivery.Body))
	}
}

// Waits until the condition holds.
func soon(what string, condition func() bool) {
	deadline := time.Now().Add(20 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			panic("gave up waiting until " + what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// The error with which the broker closes the channel of a step.
func refusal(connection *amqp.Connection, step func(other *amqp.Channel)) *amqp.Error {
	other := check(connection.Channel())
	closed := other.NotifyClose(make(chan *amqp.Error, 1))
	step(other)
	return <-closed
}

func refuses(connection *amqp.Connection, code int, words string, step func(other *amqp.Channel)) {
	reason := refusal(connection, step)
	same(reason.Reason, reason.Code, code)
	if !strings.Contains(reason.Reason, words) {
		panic(fmt.Sprintf("expected %q, got %q", words, reason.Reason))
	}
}

func lengthLimits(uri string) {
	connection, channel := connectConfirming(uri)
	defer connection.Close()
	dead := declare(channel, "limit-dead")
	for _, it := range []struct {
		overflow   string
		kept, dead []string
		acked      bool
	}{
		{"drop-head", []string{"1", "2"}, []string{"0"}, true},
		{"reject-publish", []string{"0", "1"}, []string{}, false},
		{"reject-publish-dlx", []string{"0", "1"}, []string{"2"}, false},
	} {
		for _, limit := range []string{"x-max-length", "x-max-length-bytes"} {
			queue := declareWith(channel, "limit-"+it.overflow+limit, amqp.Table{
				limit: 2, "x-overflow": it.overflow, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead,
			})
			send(channel, queue, "0")
			send(channel, queue, "1")
			same(it.overflow, confirmed(channel, "", queue, amqp.Publishing{Body: []byte("2")}), it.acked)
			same("kept by "+it.overflow, bodies(channel, queue), it.kept)
			soon("dead letters arrived", func() bool { return ready(channel, dead) == len(it.dead) })
			same("dead letters of "+it.overflow, bodies(channel, dead), it.dead)
			remove(channel, queue)
		}
	}
	remove(channel, dead)
}

func deadLetters(uri string) {
	connection, channel := connectConfirming(uri)
	defer connection.Close()
	dead := declare(channel, "dead")
	deliveries := consume(channel, dead)
	for _, it := range []struct {
		reason   string
		argument string
		value    any
	}{{"rejected", "x-unused", nil}, {"expired", "x-message-ttl", 1}, {"maxlen", "x-max-length", 1}} {
		queue := declareWith(channel, "dead-"+it.reason, amqp.Table{
			it.argument: it.value, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead,
		})
		message := amqp.Publishing{Body: []byte("first"), Headers: amqp.Table{"own": int32(1)}, Expiration: "60000"}
		same("confirm", confirmed(channel, "", queue, message), true)
		switch it.reason {
		case "rejected":
			first, _, err := channel.Get(queue, false)
			must(err)
			must(first.Reject(false))
		case "maxlen":
			send(channel, queue, "second")
		}
		delivery := take(deliveries, 1)[0]
		must(delivery.Ack(false))
		death := delivery.Headers["x-death"].([]any)[0].(amqp.Table)
		_, dated := death["time"].(time.Time)
		same("x-death has a time", dated, true)
		delete(death, "time")
		same("x-death", death, amqp.Table{
			"count": int64(1), "reason": it.reason, "queue": queue, "exchange": "", "routing-keys": []any{queue},
			"original-expiration": "60000",
		})
		same("x-first-death-reason", delivery.Headers["x-first-death-reason"], it.reason)
		same("x-first-death-queue", delivery.Headers["x-first-death-queue"], queue)
		same("the publisher's header", delivery.Headers["own"], int32(1))
		same("expiration is taken away", delivery.Expiration, "")
		remove(channel, queue)
	}
	remove(channel, dead)
}

func priorities(uri string) {
	connection, channel := connectConfirming(uri)
	defer connection.Close()
	queue := declareWith(channel, "priorities", amqp.Table{"x-max-priority": 5})
	for _, priority := range []uint8{0, 1, 5, 9, 1} {
		body := []byte(fmt.Sprint(priority))
		same("confirm", confirmed(channel, "", queue, amqp.Publishing{Body: body, Priority: priority}), true)
	}
	same("order", bodies(channel, queue), []string{"5", "9", "1", "1", "0"})
	remove(channel, queue)
}

func whoReceives(uri, name string, arguments amqp.Table, consumers []string, options amqp.Table) {
	connection, channel := connectConfirming(uri)
	defer connection.Close()
	queue := declareWith(channel, name, arguments)
	log := make(chan string, 3)
	for _, tag := range consumers {
		if tag == "first" {
			note(channel, queue, tag, log, options)
		} else {
			note(channel, queue, tag, log, nil)
		}
	}
	send(channel, queue, "a")
	send(channel, queue, "b")
	same("who received", []string{<-log, <-log}, []string{"first a", "first b"})
	must(channel.Cancel("first", false))
	send(channel, queue, "c")
	same("who received then", <-log, "second c")
	remove(channel, queue)
}

// A consumer that notes its tag and acknowledges.
func note(channel *amqp.Channel, queue, tag string, log chan<- string, options amqp.Table) {
	deliveries := check(channel.Consume(queue, tag, false, false, false, false, options))
	go func() {
		for delivery := range deliveries {
			if delivery.Ack(false) == nil {
				log <- tag + " " + string(delivery.Body)
			}
		}
	}()
}

func singleActiveConsumer(uri string) {
	whoReceives(uri, "single", amqp.Table{"x-single-active-consumer": true}, []string{"first", "second"}, nil)
}

func consumerPriorities(uri string) {
	whoReceives(uri, "consumer-priorities", nil, []string{"second", "first"}, amqp.Table{"x-priority": 10})
}

func directReplyTo(uri string) {
	asking, client := connect(uri)
	defer asking.Close()
	answering, server := connect(uri)
	defer answering.Close()
	queue := declare(server, "rpc")
	const pseudo = "amq.rabbitmq.reply-to"
	answers := check(client.Consume(pseudo, "", true, false, false, false, nil))
	publish(client, "", queue, amqp.Publishing{Body: []byte("2+2"), ReplyTo: pseudo, CorrelationId: "7"})
	question := take(consume(server, queue), 1)[0]
	same("reply-to", strings.HasPrefix(question.ReplyTo, pseudo+"."), true)
	publish(server, "", question.ReplyTo, amqp.Publishing{Body: []byte("4"), CorrelationId: question.CorrelationId})
	must(question.Ack(false))
	answer := take(answers, 1)[0]
	same("answer", []string{string(answer.Body), answer.CorrelationId}, []string{"4", "7"})
	refuses(answering, 406, "fast reply consumer does not exist", func(other *amqp.Channel) {
		publish(other, "", queue, amqp.Publishing{ReplyTo: pseudo})
	})
	remove(server, queue)
}

func globalQos(uri string) {
	connection, channel := connectConfirming(uri)
	defer connection.Close()
	queues := []string{declare(channel, "qos-0"), declare(channel, "qos-1")}
	for number := 0; number < 10; number++ {
		send(channel, queues[number%2], "")
	}
	left := func() int { return ready(channel, queues[0]) + ready(channel, queues[1]) }
	must(channel.Qos(3, 0, true))
	deliveries := make(chan amqp.Delivery)
	for _, queue := range queues {
		consumer := consume(channel, queue)
		go func() {
			for delivery := range consumer {
				deliveries <- delivery
			}
		}()
	}
	taken := take(deliveries, 3)
	same("left: one limit for two consumers", left(), 7)
	for _, delivery := range taken {
		must(delivery.Ack(false))
	}
	take(deliveries, 3)
	same("left after three acks", left(), 4)
	for _, queue := range queues {
		remove(channel, queue)
	}
}

func transactions(uri string) {
	connection, channel := connect(uri)
	defer connection.Close()
	watcher := check(connection.Channel())
	queue := declare(channel, "tx")
	publish(channel, "", queue, amqp.Publishing{Body: []byte("old")})
	must(channel.Tx())
	old, ok, err := channel.Get(queue, false)
	must(err)
	same("the old message", ok, true)
	publish(channel, "", queue, amqp.Publishing{Body: []byte("rolled back")})
	must(old.Ack(false))
	must(channel.TxRollback())
	same("ready after the rollback", ready(watcher, queue), 0)
	publish(channel, "", queue, amqp.Publishing{Body: []byte("new")})
	must(old.Ack(false))
	same("ready before the commit", ready(watcher, queue), 0)
	must(channel.TxCommit())
	same("after the commit", bodies(watcher, queue), []string{"new"})
	refuses(connection, 406, "cannot switch from confirm to tx mode", func(other *amqp.Channel) {
		must(other.Confirm(false))
		_ = other.Tx()
	})
	remove(watcher, queue)
}

func updateSecret(uri string) {
	connection, channel := connect(uri)
	defer connection.Close()
	must(connection.UpdateSecret("a new secret", "the old one expired"))
	must(channel.Flow(true))
	remove(channel, declare(channel, "secret"))
}

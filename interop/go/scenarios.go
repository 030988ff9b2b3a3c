package main

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func declareBind(uri string) {
	connection, channel := connect(uri)
	defer connection.Close()
	queue := declare(channel, "declare-bind")
	for _, it := range []struct {
		kind, bindingKey, routingKey string
		arguments                    amqp.Table
	}{
		{"direct", "red", "red", nil},
		{"fanout", "", "anything", nil},
		{"topic", "#.red.*", "red.very", nil},
		{"headers", "", "", amqp.Table{"x-match": "all", "colour": "red", "size": int64(1)}},
	} {
		exchange := unique(it.kind)
		must(channel.ExchangeDeclare(exchange, it.kind, true, false, false, false, nil))
		must(channel.ExchangeDeclarePassive(exchange, it.kind, true, false, false, false, nil))
		must(channel.QueueBind(queue, it.bindingKey, exchange, false, it.arguments))
		publish(channel, exchange, it.routingKey, amqp.Publishing{
			Body: []byte(it.kind), Headers: amqp.Table{"colour": "red", "size": int32(1)},
		})
		delivery := get(channel, queue)
		same("route", []string{delivery.Exchange, delivery.RoutingKey}, []string{exchange, it.routingKey})
		same("body", string(delivery.Body), it.kind)
		must(channel.QueueUnbind(queue, it.bindingKey, exchange, it.arguments))
		publish(channel, exchange, it.routingKey, amqp.Publishing{Body: []byte("lost")})
		_, routed, err := channel.Get(queue, true)
		must(err)
		same("routed after unbind", routed, false)
		must(channel.ExchangeDelete(exchange, false, false))
	}
	remove(channel, queue)
}

func publishConfirms(uri string) {
	connection, channel := connect(uri)
	defer connection.Close()
	queue := declare(channel, "publish-confirms")
	must(channel.Confirm(false))
	const count = 1000
	confirms := channel.NotifyPublish(make(chan amqp.Confirmation, count))
	for number := 0; number < count; number++ {
		publish(channel, "", queue, amqp.Publishing{
			Body: []byte(strconv.Itoa(number)), DeliveryMode: amqp.Persistent,
		})
	}
	for number := uint64(1); number <= count; number++ {
		// The client sorts the confirms and splits those that cover many.
		same("confirm", <-confirms, amqp.Confirmation{DeliveryTag: number, Ack: true})
	}
	same("ready", ready(channel, queue), count)
	for number := 0; number < count; number++ {
		same("order", string(get(channel, queue).Body), strconv.Itoa(number))
	}
	remove(channel, queue)
}

func consumePrefetch(uri string) {
	connection, channel := connect(uri)
	defer connection.Close()
	queue := declare(channel, "consume-prefetch")
	must(channel.Confirm(false)) // RabbitMQ's counts may lag behind messages that are not confirmed
	for number := 0; number < 20; number++ {
		message := amqp.Publishing{Body: []byte{byte(number)}}
		confirm := check(channel.PublishWithDeferredConfirm("", queue, false, false, message))
		same("confirm", confirm.Wait(), true)
	}
	same("ready before consuming", ready(channel, queue), 20)
	must(channel.Qos(5, 0, false))
	deliveries := consume(channel, queue)
	taken := take(deliveries, 5)
	same("ready with five unacked", ready(channel, queue), 15)
	must(taken[2].Ack(true))
	taken = append(taken, take(deliveries, 3)...)
	same("ready after three acks", ready(channel, queue), 12)
	must(channel.Ack(0, true))
	taken = append(taken, take(deliveries, 5)...)
	must(taken[len(taken)-1].Ack(true))
	taken = append(taken, take(deliveries, 5)...)
	for number, delivery := range taken {
		same("order", delivery.Body, []byte{byte(number)})
	}
	remove(channel, queue)
	// The queue went, so the broker cancels its consumer and the client closes the deliveries.
	_, open := <-deliveries
	same("deliveries open after the queue went", open, false)
}

func nackRequeue(uri string) {
	connection, channel := connect(uri)
	defer connection.Close()
	queue := declare(channel, "nack-requeue")
	for _, body := range []string{"a", "b", "c"} {
		publish(channel, "", queue, amqp.Publishing{Body: []byte(body)})
	}
	must(channel.Qos(1, 0, false))
	deliveries := consume(channel, queue)
	next := func(body string, redelivered bool) amqp.Delivery {
		delivery := take(deliveries, 1)[0]
		same("body", string(delivery.Body), body)
		same("redelivered flag of "+body, delivery.Redelivered, redelivered)
		return delivery
	}
	must(next("a", false).Nack(false, true))
	must(next("a", true).Reject(true))
	must(next("a", true).Nack(false, false))
	must(next("b", false).Reject(false))
	next("c", false)
	must(channel.Recover(true))
	must(next("c", true).Ack(false))
	same("ready at the end", ready(channel, queue), 0)
	remove(channel, queue)
}

func mandatoryReturn(uri string) {
	connection, channel := connect(uri)
	defer connection.Close()
	must(channel.Confirm(false))
	// Without room in these channels the client's reader waits for us, so we see the broker's order.
	returns := channel.NotifyReturn(make(chan amqp.Return))
	confirms := channel.NotifyPublish(make(chan amqp.Confirmation))
	for tag := uint64(1); tag <= 3; tag++ {
		must(channel.Publish("amq.topic", unique("nowhere"), true, false, amqp.Publishing{
			Body: []byte("back"), MessageId: "m1",
		}))
		select {
		case returned := <-returns:
			same("code", returned.ReplyCode, uint16(312))
			same("text", returned.ReplyText, "NO_ROUTE")
			same("route", []string{returned.Exchange, returned.RoutingKey}, []string{"amq.topic", unique("nowhere")})
			same("content", []string{returned.MessageId, string(returned.Body)}, []string{"m1", "back"})
		case <-confirms:
			panic("the confirm came without a return before it")
		}
		same("confirm", <-confirms, amqp.Confirmation{DeliveryTag: tag, Ack: true})
	}
}

func largeBody(uri string) {
	connection, channel := connect(uri)
	defer connection.Close()
	queue := declare(channel, "large-body")
	body := make([]byte, 10<<20)
	check(rand.Read(body))
	must(channel.Confirm(false))
	confirms := channel.NotifyPublish(make(chan amqp.Confirmation, 1))
	publish(channel, "", queue, amqp.Publishing{Body: body, DeliveryMode: amqp.Persistent})
	same("confirm", (<-confirms).Ack, true)
	same("SHA-256 of 10 MiB", sha256.Sum256(get(channel, queue).Body), sha256.Sum256(body))
	remove(channel, queue)
}

func emptyBody(uri string) {
	connection, channel := connect(uri)
	defer connection.Close()
	queue := declare(channel, "empty-body")
	publish(channel, "", queue, amqp.Publishing{MessageId: "empty"})
	publish(channel, "", queue, amqp.Publishing{Body: []byte("next")})
	taken := take(consume(channel, queue), 2)
	same("empty message", []any{len(taken[0].Body), taken[0].MessageId}, []any{0, "empty"})
	same("next message", string(taken[1].Body), "next")
	remove(channel, queue)
}

func headerTypes(uri string) {
	connection, channel := connect(uri)
	defer connection.Close()
	queue := declare(channel, "header-types")
	// Every type has its own tag on the wire, and comes back as the same Go type only under that tag.
	headers := amqp.Table{
		"bool":         true,
		"int8":         int8(-128),
		"uint8":        uint8(255),
		"int16":        int16(-32768),
		"uint16":       uint16(65535),
		"int32":        int32(-1 << 31),
		"uint32":       uint32(1<<32 - 1),
		"int64":        int64(-1 << 63),
		"float32":      float32(0.1),
		"float64":      0.1,
		"decimal":      amqp.Decimal{Scale: 2, Value: 314},
		"string":       "grün 🐇",
		"empty string": "",
		"bytes":        []byte{0, 255, 254},
		"timestamp":    time.Unix(1<<31, 0),
		"void":         nil,
		"array":        []any{int32(1), "two", nil, []any{false}, amqp.Table{"five": int16(5)}},
		"empty array":  []any{},
		"table":        amqp.Table{"deep": amqp.Table{"deeper": amqp.Table{"deepest": []any{0.25}}}},
		"empty table":  amqp.Table{},
	}
	publish(channel, "", queue, amqp.Publishing{Headers: headers})
	received := get(channel, queue).Headers
	for key, value := range headers {
		if key == "empty array" { // the client reads it as a nil slice
			same(key, len(received[key].([]any)), 0)
			continue
		}
		same(key, received[key], value)
	}
	same("number of headers", len(received), len(headers))
	remove(channel, queue)
}

func properties(uri string) {
	connection, channel := connect(uri)
	defer connection.Close()
	queue := declare(channel, "properties")
	sent := amqp.Publishing{
		Headers:         amqp.Table{"k": "v"},
		ContentType:     "text/plain",
		ContentEncoding: "utf-8",
		DeliveryMode:    amqp.Persistent,
		Priority:        9,
		CorrelationId:   "correlation",
		ReplyTo:         "answers",
		Expiration:      "60000",
		MessageId:       "message",
		Timestamp:       time.Unix(1_700_000_000, 0),
		Type:            "kind",
		UserId:          "guest",
		AppId:           "application",
		Body:            []byte("all"),
	}
	publish(channel, "", queue, sent)
	it := get(channel, queue)
	received := amqp.Publishing{
		Headers: it.Headers, ContentType: it.ContentType, ContentEncoding: it.ContentEncoding,
		DeliveryMode: it.DeliveryMode, Priority: it.Priority, CorrelationId: it.CorrelationId,
		ReplyTo: it.ReplyTo, Expiration: it.Expiration, MessageId: it.MessageId, Timestamp: it.Timestamp,
		Type: it.Type, UserId: it.UserId, AppId: it.AppId, Body: it.Body,
	}
	same("the properties the client can set", received, sent)
	remove(channel, queue)
}

func channelError(uri string) {
	connection, channel := connect(uri)
	defer connection.Close()
	queue := declare(channel, "channel-error")
	absent := unique("absent")
	for _, it := range []struct {
		code  int
		words string
		fail  func(other *amqp.Channel)
	}{
		{404, "NOT_FOUND - no exchange '" + absent + "' in vhost '/'", func(other *amqp.Channel) {
			publish(other, absent, "key", amqp.Publishing{})
		}},
		{404, "NOT_FOUND - no queue '" + absent + "' in vhost '/'", func(other *amqp.Channel) {
			_, _ = other.Consume(absent, "", false, false, false, false, nil)
		}},
		{406, "PRECONDITION_FAILED - inequivalent arg 'durable' for queue '" + queue + "'", func(other *amqp.Channel) {
			_, _ = other.QueueDeclare(queue, false, false, false, false, nil)
		}},
		{406, "PRECONDITION_FAILED - unknown delivery tag 99", func(other *amqp.Channel) {
			must(other.Ack(99, false))
		}},
	} {
		other := check(connection.Channel())
		closed := other.NotifyClose(make(chan *amqp.Error, 1))
		it.fail(other)
		reason := <-closed
		same(it.words, reason.Code, it.code)
		if !strings.Contains(reason.Reason, it.words) {
			panic(fmt.Sprintf("expected %q, got %q", it.words, reason.Reason))
		}
	}
	same("the first channel still works", ready(channel, queue), 0)
	remove(channel, queue)
}

func reconnect(uri string) {
	connection, channel := connect(uri)
	queue := declare(channel, "reconnect")
	must(channel.Confirm(false))
	confirms := channel.NotifyPublish(make(chan amqp.Confirmation, 1))
	publish(channel, "", queue, amqp.Publishing{Body: []byte("kept"), DeliveryMode: amqp.Persistent})
	same("confirm", (<-confirms).Ack, true)
	exclusive := check(channel.QueueDeclare(unique("exclusive"), false, false, true, false, nil)).Name
	same("first delivery", take(consume(channel, queue), 1)[0].Redelivered, false)
	must(connection.Close()) // by us, with the message unacked

	var socket net.Conn
	connection = check(amqp.DialConfig(uri, amqp.Config{Dial: func(network, address string) (net.Conn, error) {
		var err error
		socket, err = amqp.DefaultDial(10*time.Second)(network, address)
		return socket, err
	}}))
	channel = check(connection.Channel())
	check(channel.QueueDeclare(exclusive, false, false, true, false, nil)) // free again: it went with its connection
	same("delivery after an orderly close", take(consume(channel, queue), 1)[0].Redelivered, true)
	lost := connection.NotifyClose(make(chan *amqp.Error, 1))
	must(socket.Close()) // without a word to the broker
	if reason := <-lost; reason == nil {
		panic(errors.New("the client thinks it closed the connection itself"))
	}

	connection, channel = connect(uri)
	defer connection.Close()
	delivery := take(consume(channel, queue), 1)[0]
	same("delivery after a dropped socket", delivery.Redelivered, true)
	same("body", string(delivery.Body), "kept")
	must(delivery.Ack(false))
	same("ready at the end", ready(channel, queue), 0)
	remove(channel, queue)
}

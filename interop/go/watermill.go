package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/ThreeDotsLabs/watermill"
	mill "github.com/ThreeDotsLabs/watermill-amqp/v3/pkg/amqp"
	"github.com/ThreeDotsLabs/watermill/message"
)

// What Watermill's users do: publish to a topic, subscribe to it, ack and nack.
var watermillScenarios = []scenario{
	{"publish_confirms", watermillConfirms},
	{"nack_requeue", watermillNack},
	{"transactions", watermillTransactions},
}

// A publisher and a subscriber of a durable queue; the function that ends both.
func watermillPair(uri string, change func(*mill.Config)) (*mill.Publisher, *mill.Subscriber, func()) {
	config := mill.NewDurableQueueConfig(uri)
	config.Publish.ConfirmDelivery = true
	change(&config)
	publisher := check(mill.NewPublisher(config, watermill.NopLogger{}))
	subscriber := check(mill.NewSubscriber(config, watermill.NopLogger{}))
	return publisher, subscriber, func() { must(errors.Join(publisher.Close(), subscriber.Close())) }
}

func removeQueue(uri, queue string) {
	connection, channel := connect(uri)
	remove(channel, queue)
	must(connection.Close())
}

func watermillConfirms(uri string) {
	publisher, subscriber, end := watermillPair(uri, func(*mill.Config) {})
	topic := unique("watermill")
	messages := check(subscriber.Subscribe(context.Background(), topic))
	for number := 0; number < 100; number++ {
		must(publisher.Publish(topic, message.NewMessage(fmt.Sprint(number), []byte(fmt.Sprint(number)))))
	}
	for number := 0; number < 100; number++ {
		received := <-messages
		same("order", string(received.Payload), fmt.Sprint(number))
		same("the header that carries its id", received.UUID, fmt.Sprint(number))
		received.Ack()
	}
	end()
	removeQueue(uri, topic)
}

func watermillNack(uri string) {
	publisher, subscriber, end := watermillPair(uri, func(*mill.Config) {})
	topic := unique("watermill-nack")
	messages := check(subscriber.Subscribe(context.Background(), topic))
	must(publisher.Publish(topic, message.NewMessage("again", nil)))
	(<-messages).Nack()
	received := <-messages
	same("it came again", received.UUID, "again")
	received.Ack()
	end()
	removeQueue(uri, topic)
}

func watermillTransactions(uri string) {
	publisher, subscriber, end := watermillPair(uri, func(config *mill.Config) {
		config.Publish.ConfirmDelivery = false
		config.Publish.Transactional = true
	})
	topic := unique("watermill-tx")
	messages := check(subscriber.Subscribe(context.Background(), topic))
	must(publisher.Publish(topic, message.NewMessage("a", nil), message.NewMessage("b", nil)))
	for _, id := range []string{"a", "b"} {
		received := <-messages
		same("both of one transaction", received.UUID, id)
		received.Ack()
	}
	end()
	removeQueue(uri, topic)
}

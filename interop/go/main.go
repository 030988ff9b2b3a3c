// Runs the interop scenarios with amqp091-go, or what is built on it: `scenarios CLIENT URI [SCENARIO...]` prints one JSON
// line for each.
package main

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const scenarioSeconds = 30

// Queue and exchange names carry it, so that runs against one broker never meet.
var run = func() string {
	octets := make([]byte, 4)
	check(rand.Read(octets))
	return hex.EncodeToString(octets)
}()

type scenario struct {
	name string
	// Fails by panicking; check, must and same do.
	play func(uri string)
}

var scenarios = []scenario{
	{"declare_bind", declareBind},
	{"publish_confirms", publishConfirms},
	{"consume_prefetch", consumePrefetch},
	{"nack_requeue", nackRequeue},
	{"mandatory_return", mandatoryReturn},
	{"large_body", largeBody},
	{"empty_body", emptyBody},
	{"header_types", headerTypes},
	{"properties", properties},
	{"channel_error", channelError},
	{"reconnect", reconnect},
	{"consistent_hash", consistentHash},
	{"recent_history", recentHistory},
	{"headers_matching", headersMatching},
	{"alternate_exchange", alternateExchange},
	{"carbon_copies", carbonCopies},
	{"length_limits", lengthLimits},
	{"dead_letters", deadLetters},
	{"priorities", priorities},
	{"single_active_consumer", singleActiveConsumer},
	{"consumer_priorities", consumerPriorities},
	{"direct_reply_to", directReplyTo},
	{"global_qos", globalQos},
	{"transactions", transactions},
	{"update_secret", updateSecret},
	{"expiry", expiry},
	{"quorum_queue", quorumQueue},
	{"delays", delays},
	{"delayed_retry", delayedRetry},
	{"retry_until_dead", retryUntilDead},
	{"consumer_timeout", consumerTimeout},
	{"settle", settle},
}

type result struct {
	Scenario string  `json:"scenario"`
	Ok       bool    `json:"ok"`
	Seconds  float64 `json:"seconds"`
	Detail   string  `json:"detail"`
}

func main() {
	clients := map[string][]scenario{"amqp091": scenarios, "watermill": watermillScenarios}
	if len(os.Args) < 3 || clients[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: scenarios amqp091|watermill amqp://USER:PASSWORD@HOST:PORT [SCENARIO...]")
		os.Exit(2)
	}
	allOk := true
	for _, chosen := range choose(clients[os.Args[1]], os.Args[3:]) {
		started := time.Now()
		detail := playWithinTime(chosen, os.Args[2])
		line := result{chosen.name, detail == "", time.Since(started).Seconds(), detail}
		must(json.NewEncoder(os.Stdout).Encode(line))
		allOk = allOk && line.Ok
	}
	if !allOk {
		os.Exit(1)
	}
}

func choose(scenarios []scenario, names []string) []scenario {
	if len(names) == 0 {
		return scenarios
	}
	var chosen []scenario
	for _, name := range names {
		found := false
		for _, known := range scenarios {
			if known.name == name {
				chosen, found = append(chosen, known), true
			}
		}
		if !found {
			fmt.Fprintln(os.Stderr, "no scenario", name)
			os.Exit(2)
		}
	}
	return chosen
}

// Returns what went wrong, or nothing. A broker that stays silent fails the scenario instead of hanging it.
func playWithinTime(chosen scenario, uri string) string {
	done := make(chan string, 1)
	go func() {
		defer func() {
			if problem := recover(); problem != nil {
				done <- fmt.Sprint(problem)
			}
		}()
		chosen.play(uri)
		done <- ""
	}()
	select {
	case detail := <-done:
		return detail
	case <-time.After(scenarioSeconds * time.Second):
		return fmt.Sprintf("still waiting after %d s", scenarioSeconds)
	}
}

func unique(name string) string {
	return "interop-" + run + "-" + name
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func check[T any](value T, err error) T {
	must(err)
	return value
}

func same(what string, actual, expected any) {
	if !reflect.DeepEqual(actual, expected) {
		panic(fmt.Sprintf("%s: expected %#v, got %#v", what, expected, actual))
	}
}

func connect(uri string) (*amqp.Connection, *amqp.Channel) {
	connection := check(amqp.Dial(uri))
	return connection, check(connection.Channel())
}

func declare(channel *amqp.Channel, name string) string {
	return check(channel.QueueDeclare(unique(name), true, false, false, false, nil)).Name
}

// How many messages of a queue wait for a consumer.
func ready(channel *amqp.Channel, queue string) int {
	return check(channel.QueueDeclarePassive(queue, true, false, false, false, nil)).Messages
}

func publish(channel *amqp.Channel, exchange, key string, message amqp.Publishing) {
	must(channel.Publish(exchange, key, false, false, message))
}

func consume(channel *amqp.Channel, queue string) <-chan amqp.Delivery {
	return check(channel.Consume(queue, "", false, false, false, false, nil))
}

func take(deliveries <-chan amqp.Delivery, count int) []amqp.Delivery {
	taken := make([]amqp.Delivery, 0, count)
	for len(taken) < count {
		delivery, open := <-deliveries
		if !open {
			panic("the consumer ended")
		}
		taken = append(taken, delivery)
	}
	return taken
}

// basic.get with automatic acknowledgement of a message that must be there.
func get(channel *amqp.Channel, queue string) amqp.Delivery {
	delivery, ok, err := channel.Get(queue, true)
	must(err)
	same("a message in "+queue, ok, true)
	return delivery
}

func remove(channel *amqp.Channel, queue string) {
	check(channel.QueueDelete(queue, false, false, false))
}

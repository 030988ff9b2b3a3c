package main

import (
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"
)

// An exchange of this run that goes with its last binding.
func exchange(channel *amqp.Channel, name, kind string, arguments amqp.Table) string {
	must(channel.ExchangeDeclare(unique(name), kind, true, true, false, false, arguments))
	return unique(name)
}

func consistentHash(uri string) {
	connection, channel := connectConfirming(uri)
	defer connection.Close()
	queues := []string{declare(channel, "hash-light"), declare(channel, "hash-heavy")}
	const count = 200
	for _, it := range []struct {
		name      string
		arguments amqp.Table
		message   func(value string) amqp.Publishing
	}{
		{"hash-key", nil, func(string) amqp.Publishing { return amqp.Publishing{} }},
		{"hash-header", amqp.Table{"hash-header": "on"}, func(value string) amqp.Publishing {
			return amqp.Publishing{Headers: amqp.Table{"on": value}}
		}},
		{"hash-property", amqp.Table{"hash-property": "message_id"}, func(value string) amqp.Publishing {
			return amqp.Publishing{MessageId: value}
		}},
	} {
		source := exchange(channel, it.name, "x-consistent-hash", it.arguments)
		must(channel.QueueBind(queues[0], "1", source, false, nil))
		must(channel.QueueBind(queues[1], "3", source, false, nil))
		var rounds [2][2][]string
		for round := range rounds {
			for number := 0; number < count; number++ {
				value, key := fmt.Sprint("k", number), ""
				if it.arguments == nil {
					key = value
				}
				message := it.message(value)
				message.Body = []byte(value)
				same("confirm", confirmed(channel, source, key, message), true)
			}
			rounds[round] = [2][]string{bodies(channel, queues[0]), bodies(channel, queues[1])}
		}
		same("a value goes the same way every time", rounds[1], rounds[0])
		few, many := len(rounds[0][0]), len(rounds[0][1])
		same("one queue each", few+many, count)
		same(fmt.Sprintf("%d and %d by weights 1 and 3", few, many), 0 < few && few < many, true)
	}
	for _, queue := range queues {
		remove(channel, queue)
	}
}

func recentHistory(uri string) {
	connection, channel := connectConfirming(uri)
	defer connection.Close()
	early, late := declare(channel, "history-early"), declare(channel, "history-late")
	source := exchange(channel, "history", "x-recent-history", amqp.Table{"x-recent-history-length": 2})
	must(channel.QueueBind(early, "", source, false, nil))
	for _, body := range []string{"a", "b", "c"} {
		same("confirm", confirmed(channel, source, "", amqp.Publishing{Body: []byte(body)}), true)
	}
	must(channel.QueueBind(late, "", source, false, nil))
	same("early", bodies(channel, early), []string{"a", "b", "c"})
	soon("the history came", func() bool { return ready(channel, late) == 2 })
	remove(channel, early)
	remove(channel, late)
}

func headersMatching(uri string) {
	connection, channel := connectConfirming(uri)
	defer connection.Close()
	queue, anchor := declare(channel, "headers-matching"), declare(channel, "headers-anchor")
	source := exchange(channel, "headers-kept", "headers", nil)
	must(channel.QueueBind(anchor, "", source, false, amqp.Table{"never": "matches"}))
	for _, it := range []struct {
		match, colour string
		found         []string
	}{
		{"all", "red", []string{"both", "one"}}, // headers that begin with x- do not count
		{"any", "blue", []string{}},
		{"all-with-x", "red", []string{"both"}},
		{"any-with-x", "blue", []string{"both"}},
	} {
		arguments := amqp.Table{"x-match": it.match, "colour": it.colour, "x-size": 1}
		must(channel.QueueBind(queue, "", source, false, arguments))
		for size, name := range []string{1: "both", 2: "one"} {
			headers := amqp.Table{"colour": "red", "x-size": size}
			if size > 0 {
				same("confirm", confirmed(channel, source, "", amqp.Publishing{Body: []byte(name), Headers: headers}), true)
			}
		}
		same(it.match, bodies(channel, queue), it.found)
		must(channel.QueueUnbind(queue, "", source, arguments))
	}
	remove(channel, queue)
	remove(channel, anchor)
}

func alternateExchange(uri string) {
	connection, channel := connectConfirming(uri)
	defer connection.Close()
	queue, lost := declare(channel, "alternate-queue"), declare(channel, "alternate-lost")
	alternate := exchange(channel, "alternate", "fanout", nil)
	must(channel.QueueBind(lost, "", alternate, false, nil))
	source := exchange(channel, "alternated", "direct", amqp.Table{"alternate-exchange": alternate})
	must(channel.QueueBind(queue, "known", source, false, nil))
	for _, key := range []string{"known", "unknown"} {
		same("confirm", confirmed(channel, source, key, amqp.Publishing{Body: []byte(key)}), true)
	}
	same("the bound queue", bodies(channel, queue), []string{"known"})
	same("the alternate's queue", bodies(channel, lost), []string{"unknown"})
	remove(channel, queue)
	remove(channel, lost)
}

func carbonCopies(uri string) {
	connection, channel := connectConfirming(uri)
	defer connection.Close()
	to, cc, bcc := declare(channel, "copies-to"), declare(channel, "copies-cc"), declare(channel, "copies-bcc")
	headers := amqp.Table{"CC": []any{cc, to}, "BCC": []any{bcc}, "other": int32(1)}
	same("confirm", confirmed(channel, "", to, amqp.Publishing{Headers: headers}), true)
	for _, queue := range []string{to, cc, bcc} {
		delivery := get(channel, queue)
		same("BCC is taken away", delivery.Headers, amqp.Table{"CC": []any{cc, to}, "other": int32(1)})
		same("routing key", delivery.RoutingKey, to)
		same("one copy each", ready(channel, queue), 0)
		remove(channel, queue)
	}
}

<?php
// What every client has to show.

use PhpAmqpLib\Exchange\AMQPExchangeType;
use PhpAmqpLib\Message\AMQPMessage;
use PhpAmqpLib\Wire\AMQPDecimal;
use PhpAmqpLib\Wire\AMQPTable;

function declare_bind(string $uri): void
{
    $session = new Session($uri);
    $channel = $session->channel;
    $queue = $session->declare('declare-bind');
    foreach ([
        [AMQPExchangeType::DIRECT, 'red', 'red', []],
        [AMQPExchangeType::FANOUT, '', 'anything', []],
        [AMQPExchangeType::TOPIC, '*.red.#', 'very.red', []],
        [AMQPExchangeType::HEADERS, '', '', ['x-match' => 'all', 'colour' => 'red', 'size' => 70000]],
    ] as [$kind, $bindingKey, $routingKey, $arguments]) {
        $exchange = unique($kind);
        foreach ([false, false, true] as $passive) {
            $channel->exchange_declare($exchange, $kind, $passive, true, false);
        }
        $source = unique("source-of-$kind");
        $channel->exchange_declare($source, 'fanout', false, false, true);
        $channel->exchange_bind($exchange, $source);
        $channel->queue_bind($queue, $exchange, $bindingKey, false, new AMQPTable($arguments));
        $headers = ['headers' => ['colour' => 'red', 'size' => 70000]];
        $session->publish($routingKey, $kind, $headers, $source);
        $message = $session->get($queue);
        same([$message->getExchange(), $message->getRoutingKey(), $message->getBody()], [$source, $routingKey, $kind], $kind);
        $channel->queue_unbind($queue, $exchange, $bindingKey, new AMQPTable($arguments));
        $session->publish($routingKey, 'lost', $headers, $source);
        same($channel->basic_get($queue, true), null, 'what came after the unbind');
        $channel->exchange_delete($exchange);
    }
    same(str_starts_with($channel->queue_declare('', false, false, true)[0], 'amq.gen-'), true, 'server-named');
    $channel->queue_delete($queue);
    $session->close();
}

function publish_confirms(string $uri): void
{
    $session = new Session($uri);
    $queue = $session->declare('publish-confirms');
    for ($number = 0; $number < 1000; $number++) {
        $session->channel->basic_publish(new AMQPMessage((string) $number, ['delivery_mode' => 2]), '', $queue);
    }
    $session->channel->wait_for_pending_acks(20);
    same([$session->nacked, $session->ready($queue)], [false, 1000], 'nacked, ready');
    same($session->bodies($queue), array_map('strval', range(0, 999)), 'order');
    $session->channel->queue_delete($queue);
    $session->close();
}

function consume_prefetch(string $uri): void
{
    $session = new Session($uri);
    $queue = $session->declare('consume-prefetch');
    for ($number = 0; $number < 20; $number++) {
        $session->publish($queue, (string) $number);
    }
    $session->channel->basic_qos(0, 5, false);
    $session->consume($queue);
    $taken = $session->take(5);
    same($session->ready($queue), 15, 'ready with five unacked');
    $taken[2]->ack(true);
    $taken = [...$taken, ...$session->take(3)];
    same($session->ready($queue), 12, 'ready after three acks');
    $session->channel->basic_ack(0, true);
    $taken = [...$taken, ...$session->take(5)];
    end($taken)->ack(true);
    $taken = [...$taken, ...$session->take(5)];
    same(array_map(fn ($it) => (int) $it->getBody(), $taken), range(0, 17), 'order');
    $session->channel->queue_delete($queue);
    $session->close();
}

function nack_requeue(string $uri): void
{
    $session = new Session($uri);
    $queue = $session->declare('nack-requeue');
    foreach (['a', 'b', 'c'] as $body) {
        $session->publish($queue, $body);
    }
    $session->channel->basic_qos(0, 1, false);
    $session->consume($queue);
    $expect = function (string $body, bool $redelivered) use ($session): AMQPMessage {
        $message = $session->next();
        same([$message->getBody(), $message->isRedelivered()], [$body, $redelivered], 'delivery');
        return $message;
    };
    $expect('a', false)->nack(true);
    $expect('a', true)->reject(true);
    $expect('a', true)->nack();
    $expect('b', false)->reject(false);
    $expect('c', false);
    $session->channel->basic_recover(true);
    $expect('c', true)->ack();
    same($session->ready($queue), 0, 'ready at the end');
    $session->channel->queue_delete($queue);
    $session->close();
}

function mandatory_return(string $uri): void
{
    $session = new Session($uri);
    $events = [];
    $session->channel->set_return_listener(function (...$it) use (&$events): void {
        [$code, $text, $exchange, $key, $message] = $it;
        $events[] = [$code, $text, $exchange, $key, $message->get('message_id'), $message->getBody()];
    });
    $session->channel->set_ack_handler(function () use (&$events): void {
        $events[] = 'confirmed';
    });
    $session->channel->basic_publish(new AMQPMessage('back', ['message_id' => 'm1']), 'amq.direct', unique('nowhere'), true);
    $session->channel->wait_for_pending_acks_returns(20);
    same($events, [[312, 'NO_ROUTE', 'amq.direct', unique('nowhere'), 'm1', 'back'], 'confirmed'], 'events in order');
    $session->close();
}

function large_body(string $uri): void
{
    $session = new Session($uri);
    $queue = $session->declare('large-body');
    $body = random_bytes(10 << 20);
    $session->publish($queue, $body);
    same(hash('sha256', $session->get($queue)->getBody()), hash('sha256', $body), 'SHA-256 of 10 MiB');
    $session->channel->queue_delete($queue);
    $session->close();
}

function empty_body(string $uri): void
{
    $session = new Session($uri);
    $queue = $session->declare('empty-body');
    $session->publish($queue, '', ['message_id' => 'empty']);
    $session->publish($queue, 'next');
    $session->consume($queue, true);
    [$empty, $next] = $session->take(2);
    same([$empty->getBody(), $empty->get('message_id'), $next->getBody()], ['', 'empty', 'next'], 'bodies');
    $session->channel->queue_delete($queue);
    $session->close();
}

function header_types(string $uri): void
{
    $session = new Session($uri);
    $queue = $session->declare('header-types');
    $sent = [
        'boolean' => true, 'integer' => -(2 ** 31), 'long' => PHP_INT_MIN, 'string' => 'grün 🐇', 'empty string' => '',
        'void' => null, 'array' => [1, 'two', false, ['five' => 5]], 'table' => ['deep' => ['deeper' => ['deepest' => [0]]]],
    ];
    $typed = ['decimal' => new AMQPDecimal(314, 2), 'timestamp' => new DateTime('@' . 2 ** 31)];
    $session->publish($queue, '', ['headers' => $sent + $typed]);
    $table = $session->get($queue)->get('application_headers');
    $received = $table->getNativeData();
    same([$received['decimal']->getN(), $received['decimal']->getE()], [314, 2], 'decimal');
    same($received['timestamp']->getTimestamp(), 2 ** 31, 'timestamp');
    same(array_diff_key($received, $typed), $sent, 'headers');
    $session->channel->queue_delete($queue);
    $session->close();
}

function properties(string $uri): void
{
    $session = new Session($uri);
    $queue = $session->declare('properties');
    $sent = [
        'content_type' => 'text/plain', 'content_encoding' => 'utf-8', 'delivery_mode' => 2, 'priority' => 9,
        'correlation_id' => 'correlation', 'reply_to' => 'answers', 'expiration' => '60000', 'message_id' => 'message',
        'timestamp' => 1_700_000_000, 'type' => 'kind', 'user_id' => 'guest', 'app_id' => 'application',
        'cluster_id' => 'cluster',
    ];
    $session->publish($queue, 'all', $sent + ['headers' => ['k' => 'v']]);
    $message = $session->get($queue);
    same(headers($message), ['k' => 'v'], 'headers');
    same(array_map(fn ($name) => $message->get($name), array_keys($sent)), array_values($sent), 'properties');
    $session->channel->queue_delete($queue);
    $session->close();
}

function channel_error(string $uri): void
{
    $session = new Session($uri);
    $queue = $session->declare('channel-error');
    $absent = unique('absent');
    $session->refuses(404, "NOT_FOUND - no queue '$absent' in vhost '/'", fn ($it) => $it->queue_declare($absent, true));
    $session->refuses(404, "NOT_FOUND - no exchange '$absent' in vhost '/'", fn ($it) => $it->basic_publish(new AMQPMessage(''), $absent));
    $session->refuses(406, "inequivalent arg 'durable' for queue '$queue'", fn ($it) => $it->queue_declare($queue));
    $session->refuses(406, 'PRECONDITION_FAILED - unknown delivery tag 99', fn ($it) => $it->basic_ack(99));
    same($session->ready($queue), 0, 'the first channel still works');
    $session->channel->queue_delete($queue);
    $session->close();
}

function reconnect(string $uri): void
{
    $session = new Session($uri);
    $queue = $session->declare('reconnect');
    $session->publish($queue, 'kept');
    $session->channel->queue_declare(unique('exclusive'), false, false, true);
    $session->consume($queue);
    same($session->next()->isRedelivered(), false, 'first delivery');
    $session->close(); // by us, with the message unacked
    $session = new Session($uri);
    $session->channel->queue_declare(unique('exclusive'), false, false, true); // free again: it went with its connection
    $session->consume($queue);
    same($session->next()->isRedelivered(), true, 'delivery after an orderly close');
    $session->connection->getIO()->close(); // without a word to the broker
    $session = new Session($uri);
    $session->consume($queue);
    $message = $session->next();
    same([$message->getBody(), $message->isRedelivered()], ['kept', true], 'delivery after a dropped socket');
    $message->ack();
    same($session->ready($queue), 0, 'ready at the end');
    $session->channel->queue_delete($queue);
    $session->close();
}

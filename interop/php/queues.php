<?php
// What queues can be asked to do, and time in them.

use PhpAmqpLib\Message\AMQPMessage;
use PhpAmqpLib\Wire\AMQPTable;

function length_limits(string $uri): void
{
    $session = new Session($uri);
    $dead = $session->declare('limit-dead');
    foreach ([
        ['drop-head', true, ['1', '2'], ['0']],
        ['reject-publish', false, ['0', '1'], []],
        ['reject-publish-dlx', false, ['0', '1'], ['2']],
    ] as [$overflow, $acked, $kept, $deadLetters]) {
        $queue = $session->declare("limit-$overflow", [
            'overflow' => $overflow, 'max_length_bytes' => 2, 'dead_letter_exchange' => '', 'dead_letter_routing_key' => $dead,
        ]);
        same([$session->publish($queue, '0'), $session->publish($queue, '1')], [true, true], 'acks');
        same($session->publish($queue, '2'), $acked, "$overflow: an ack");
        same($session->bodies($queue), $kept, "$overflow: what is kept");
        soon(fn () => $session->ready($dead) === count($deadLetters), 'dead letters arrived');
        same($session->bodies($dead), $deadLetters, "$overflow: dead letters");
        $session->channel->queue_delete($queue);
    }
    $session->channel->queue_delete($dead);
    $session->close();
}

function dead_letters(string $uri): void
{
    $session = new Session($uri);
    $dead = $session->declare('dead');
    $queue = $session->declare('dead-expired', [
        'message_ttl' => 1, 'dead_letter_exchange' => '', 'dead_letter_routing_key' => $dead,
    ]);
    $session->publish($queue, 'first', ['headers' => ['own' => 1]]);
    $session->consume($dead, true);
    $message = $session->next();
    $headers = headers($message);
    [$death] = $headers['x-death'];
    same($death['time'] instanceof DateTime, true, 'when');
    unset($death['time']);
    ksort($death);
    $expected = ['count' => 1, 'exchange' => '', 'queue' => $queue, 'reason' => 'expired', 'routing-keys' => [$queue]];
    same([$death, $message->getBody()], [$expected, 'first'], 'x-death');
    same([$headers['x-first-death-reason'], $headers['own']], ['expired', 1], 'other headers');
    $session->channel->queue_delete($queue);
    $session->channel->queue_delete($dead);
    $session->close();
}

function priorities(string $uri): void
{
    $session = new Session($uri);
    $queue = $session->declare('priorities', ['max_priority' => 5]);
    foreach ([0, 1, 5, 9, 1] as $priority) {
        $session->publish($queue, (string) $priority, ['priority' => $priority]);
    }
    same($session->bodies($queue), ['5', '9', '1', '1', '0'], 'order');
    $session->channel->queue_delete($queue);
    $session->close();
}

function direct_reply_to(string $uri): void
{
    [$client, $server] = [new Session($uri), new Session($uri)];
    $queue = $server->declare('rpc');
    $client->consume('amq.rabbitmq.reply-to', true);
    $client->publish($queue, '2+2', ['reply_to' => 'amq.rabbitmq.reply-to', 'correlation_id' => '7']);
    $server->consume($queue);
    $question = $server->next();
    $server->publish($question->get('reply_to'), '4', ['correlation_id' => $question->get('correlation_id')]);
    $question->ack();
    $answer = $client->next();
    same([$answer->getBody(), $answer->get('correlation_id')], ['4', '7'], 'answer');
    $server->refuses(406, 'fast reply consumer does not exist', fn ($it) => $it->basic_publish(
        new AMQPMessage('', ['reply_to' => 'amq.rabbitmq.reply-to']), '', $queue));
    $server->channel->queue_delete($queue);
    $server->close();
    $client->close();
}

function global_qos(string $uri): void
{
    $session = new Session($uri);
    $queues = [$session->declare('qos-0'), $session->declare('qos-1')];
    for ($number = 0; $number < 10; $number++) {
        $session->publish($queues[$number % 2], '');
    }
    $session->channel->basic_qos(0, 3, true);
    array_map(fn ($queue) => $session->consume($queue), $queues);
    $taken = $session->take(3);
    same(array_sum(array_map(fn ($it) => $session->ready($it), $queues)), 7, 'left, with one limit for two consumers');
    $taken[2]->ack(true);
    $session->take(3);
    same(array_sum(array_map(fn ($it) => $session->ready($it), $queues)), 4, 'left after three acks');
    array_map(fn ($queue) => $session->channel->queue_delete($queue), $queues);
    $session->close();
}

function transactions(string $uri): void
{
    [$session, $watcher] = [new Session($uri, confirms: false), new Session($uri)];
    $queue = $session->declare('tx');
    $watcher->publish($queue, 'old');
    $session->channel->tx_select();
    $old = $session->channel->basic_get($queue);
    $session->channel->basic_publish(new AMQPMessage('rolled back'), '', $queue);
    $old->getChannel()->basic_ack($old->getDeliveryTag());
    $session->channel->tx_rollback();
    same($watcher->ready($queue), 0, 'ready after the rollback');
    $session->channel->basic_publish(new AMQPMessage('new'), '', $queue);
    $session->channel->basic_ack($old->getDeliveryTag());
    same($watcher->ready($queue), 0, 'ready before the commit');
    $session->channel->tx_commit();
    same($watcher->bodies($queue), ['new'], 'after the commit');
    $session->channel->queue_delete($queue);
    $session->close();
    $watcher->close();
}

function quorum_queue(string $uri): void
{
    $session = new Session($uri);
    $dead = $session->declare('quorum-dead');
    $queue = $session->declare('quorum', [
        'queue_type' => 'quorum', 'delivery_limit' => 2, 'dead_letter_exchange' => '', 'dead_letter_routing_key' => $dead,
    ]);
    $session->publish($queue, 'poison');
    $session->consume($queue);
    foreach ([null, 1, 2] as $count) {
        $message = $session->next();
        same(headers($message)['x-delivery-count'] ?? null, $count, 'x-delivery-count');
        $message->reject(true);
    }
    soon(fn () => $session->ready($dead) === 1, 'the poison message is dead-lettered');
    same(headers($session->get($dead))['x-death'][0]['reason'], 'delivery_limit', 'why');
    $session->channel->queue_delete($queue);
    $session->channel->queue_delete($dead);
    $session->close();
}

function delays(string $uri): void
{
    $session = new Session($uri);
    $queue = $session->declare('delayed');
    $source = unique('delayed-exchange');
    $type = new AMQPTable(['x-delayed-type' => 'direct']);
    $session->channel->exchange_declare($source, 'x-delayed-message', false, true, false, false, false, $type);
    $session->channel->queue_bind($queue, $source, 'key');
    $session->publish($queue, 'fourth', ['headers' => ['x-opt-delivery-time' => new DateTime('+2 seconds')]]);
    $session->publish('key', 'third', ['headers' => ['x-delay' => 600]], $source);
    $session->publish($queue, 'second', ['headers' => ['x-opt-delivery-delay' => 300]]);
    $session->publish('key', 'first', ['headers' => ['x-delay' => -1]], $source);
    same($session->ready($queue), 1, 'the one without a delay is there');
    soon(fn () => $session->ready($queue) === 4, 'all came');
    same($session->bodies($queue), ['first', 'second', 'third', 'fourth'], 'order');
    $session->channel->exchange_delete($source);
    $session->channel->queue_delete($queue);
    $session->close();
}

function delayed_retry(string $uri): void
{
    $session = new Session($uri);
    $queue = $session->declare('retried', ['delayed_retry_type' => 'all', 'delayed_retry_min' => 200]);
    $session->publish($queue, 'again');
    $session->publish($queue, 'behind');
    $session->consume($queue);
    $session->next()->nack(true);
    foreach ([['behind', false], ['again', true]] as $expected) {
        $message = $session->next();
        same([$message->getBody(), $message->isRedelivered()], $expected, 'delivery');
        $message->ack();
    }
    $session->channel->queue_delete($queue);
    $session->close();
}

function settle(string $uri): void
{
    $session = new Session($uri);
    [$target, $refused] = [$session->declare('settled-target'), $session->declare('settled-refused')];
    $queue = $session->declare('settled', ['dead_letter_exchange' => '', 'dead_letter_routing_key' => $refused]);
    foreach (['retried', 'answered', 'rejected'] as $body) {
        $session->publish($queue, $body);
    }
    $session->consume($queue);
    $order = fn (AMQPMessage $it, array $headers) => same($session->publish('', '42', [
        'headers' => $headers + ['x-delivery-tag' => $it->getDeliveryTag()],
    ], 'amq.settle'), true, 'confirm');
    [$retried, $answered, $rejected] = $session->take(3);
    $order($retried, ['x-op' => 'retry', 'x-delay' => 100]);
    $order($answered, ['x-op' => 'ack-and-publish', 'x-exchange' => '', 'x-routing-key' => $target]);
    $order($rejected, ['x-op' => 'reject', 'x-reason' => 'no such customer', 'x-annotations' => ['customer' => 7]]);
    same($session->bodies($target), ['42'], 'published with the ack');
    soon(fn () => $session->ready($refused) === 1, 'the rejected one is dead-lettered');
    $headers = headers($session->get($refused));
    same([$headers['x-reason'], $headers['customer']], ['no such customer', 7], 'why');
    $again = $session->next();
    same([$again->getBody(), headers($again)['x-delivery-count']], ['retried', 1], 'the retry');
    $again->ack();
    same($session->ready($queue), 0, 'left');
    $headers = new AMQPTable(['x-op' => 'retry', 'x-delivery-tag' => 99]);
    $session->refuses(406, 'PRECONDITION_FAILED', fn ($it) => $it->basic_publish(
        new AMQPMessage('', ['application_headers' => $headers]), 'amq.settle'));
    array_map(fn ($name) => $session->channel->queue_delete($name), [$queue, $target, $refused]);
    $session->close();
}

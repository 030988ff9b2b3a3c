<?php
// What every scenario needs: a channel, names of this run, and things that are awaited.

use PhpAmqpLib\Channel\AMQPChannel;
use PhpAmqpLib\Connection\AMQPStreamConnection;
use PhpAmqpLib\Exception\AMQPProtocolChannelException;
use PhpAmqpLib\Message\AMQPMessage;
use PhpAmqpLib\Wire\AMQPTable;

// Queue and exchange names carry it, so that runs against one broker never meet.
define('RUN', bin2hex(random_bytes(4)));

function unique(string $name): string
{
    return 'interop-' . RUN . "-$name";
}

function same(mixed $actual, mixed $expected, string $what): void
{
    if ($actual !== $expected) {
        throw new RuntimeException("$what: expected " . json_encode($expected) . ', got ' . json_encode($actual));
    }
}

/** Waits until the condition holds. */
function soon(callable $condition, string $what): void
{
    $deadline = microtime(true) + 20;
    while (!$condition()) {
        same(microtime(true) < $deadline, true, "gave up waiting until $what");
        usleep(10000);
    }
}

/** A connection with one channel, and the few steps every scenario takes. */
final class Session
{
    public readonly AMQPStreamConnection $connection;
    public readonly AMQPChannel $channel;
    public bool $nacked = false;
    /** @var AMQPMessage[] */
    private array $arrived = [];

    public function __construct(string $uri, bool $confirms = true)
    {
        $it = parse_url($uri);
        $this->connection = new AMQPStreamConnection($it['host'], $it['port'] ?? 5672, $it['user'], $it['pass']);
        $this->channel = $this->connection->channel();
        if ($confirms) {
            $this->channel->confirm_select();
            $this->channel->set_nack_handler(fn () => $this->nacked = true);
        }
    }

    public function close(): void
    {
        $this->connection->close();
    }

    /** Declares a durable queue of this run; an argument `max_length` is sent as `x-max-length`. */
    public function declare(string $name, array $arguments = []): string
    {
        $named = [];
        foreach ($arguments as $key => $value) {
            $named['x-' . strtr($key, '_', '-')] = $value;
        }
        $this->channel->queue_declare(unique($name), false, true, false, false, false, new AMQPTable($named));
        return unique($name);
    }

    /** Publishes and waits for the confirm; false when it was a nack. */
    public function publish(string $queue, string $body, array $properties = [], string $exchange = ''): bool
    {
        if (isset($properties['headers'])) {
            $properties['application_headers'] = new AMQPTable($properties['headers']);
            unset($properties['headers']);
        }
        $this->nacked = false;
        $this->channel->basic_publish(new AMQPMessage($body, $properties + ['delivery_mode' => 2]), $exchange, $queue);
        $this->channel->wait_for_pending_acks(20);
        return !$this->nacked;
    }

    public function ready(string $queue): int
    {
        return $this->channel->queue_declare($queue, true)[1];
    }

    /** Gets a message that must be there, with automatic acknowledgement. */
    public function get(string $queue): AMQPMessage
    {
        return $this->channel->basic_get($queue, true) ?? throw new RuntimeException("$queue is empty");
    }

    /** Everything that waits in a queue, taken out of it. */
    public function bodies(string $queue): array
    {
        $found = [];
        while ($message = $this->channel->basic_get($queue, true)) {
            $found[] = $message->getBody();
        }
        return $found;
    }

    public function consume(string $queue, bool $noAck = false): void
    {
        $arrived = function (AMQPMessage $message): void {
            $this->arrived[] = $message;
        };
        $this->channel->basic_consume($queue, '', false, $noAck, false, false, $arrived);
    }

    /** The next delivery of any consumer. */
    public function next(): AMQPMessage
    {
        while (!$this->arrived) {
            $this->channel->wait(null, false, 20);
        }
        return array_shift($this->arrived);
    }

    /** @return AMQPMessage[] */
    public function take(int $count): array
    {
        return array_map(fn () => $this->next(), range(1, $count));
    }

    /** Takes a step on a channel of its own, which the broker must close with this code and these words. */
    public function refuses(int $code, string $words, callable $step): void
    {
        $other = $this->connection->channel();
        try {
            $step($other);
            $other->wait(null, false, 20);
        } catch (AMQPProtocolChannelException $refused) {
            same($refused->amqp_reply_code, $code, $refused->amqp_reply_text);
            same(str_contains($refused->amqp_reply_text, $words), true, $refused->amqp_reply_text);
            return;
        }
        throw new RuntimeException("not refused: $words");
    }
}

/** The headers of a message as PHP's own values. */
function headers(AMQPMessage $message): array
{
    return $message->has('application_headers') ? $message->get('application_headers')->getNativeData() : [];
}

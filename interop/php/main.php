<?php
// Runs the interop scenarios with php-amqplib: `php main.php URI [SCENARIO...]` prints one JSON line for each.

require_once 'PhpAmqpLib/autoload.php';
require_once __DIR__ . '/session.php';
require_once __DIR__ . '/basics.php';
require_once __DIR__ . '/queues.php';

const SCENARIO_SECONDS = 30;
const SCENARIOS = [
    'declare_bind', 'publish_confirms', 'consume_prefetch', 'nack_requeue', 'mandatory_return', 'large_body', 'empty_body',
    'header_types', 'properties', 'channel_error', 'reconnect', 'length_limits', 'dead_letters', 'priorities',
    'direct_reply_to', 'global_qos', 'transactions', 'quorum_queue', 'delays', 'delayed_retry', 'settle',
];

// A broker that stays silent fails the scenario instead of hanging it.
pcntl_async_signals(true);
pcntl_signal(SIGALRM, fn () => throw new RuntimeException('still waiting after ' . SCENARIO_SECONDS . ' s'));
// A scenario is a function of the same name; what PHP only warns of fails it too.
set_error_handler(fn ($_, $text) => error_reporting() & E_DEPRECATED ? throw new ErrorException($text) : false, E_ALL & ~E_DEPRECATED);

function play(string $name, string $uri): bool
{
    $started = microtime(true);
    $detail = '';
    pcntl_alarm(SCENARIO_SECONDS);
    try {
        $name($uri);
    } catch (Throwable $problem) {
        fwrite(STDERR, "$problem\n");
        $detail = get_class($problem) . ': ' . $problem->getMessage();
    }
    pcntl_alarm(0);
    $seconds = round(microtime(true) - $started, 3);
    $line = ['scenario' => $name, 'ok' => $detail === '', 'seconds' => $seconds, 'detail' => $detail];
    echo json_encode($line, JSON_INVALID_UTF8_SUBSTITUTE), "\n";
    return $detail === '';
}

[, $uri] = [...$argv, '', ''];
$names = array_slice($argv, 2);
if ($uri === '' || array_diff($names, SCENARIOS)) {
    fwrite(STDERR, "usage: main.php amqp://USER:PASSWORD@HOST:PORT [" . implode('|', SCENARIOS) . "]...\n");
    exit(2);
}
$outcomes = array_map(fn ($name) => play($name, $uri), $names ?: SCENARIOS);
exit(in_array(false, $outcomes, true) ? 1 : 0);

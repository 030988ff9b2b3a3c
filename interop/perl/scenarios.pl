# Runs interop scenarios with AnyEvent::RabbitMQ: `perl scenarios.pl URI [SCENARIO...]` prints one JSON line for each.
use strict;
use warnings;
use AnyEvent;
use AnyEvent::RabbitMQ;
use JSON::PP;
use Time::HiRes qw(time);

my $SCENARIO_SECONDS = 30;

# Queue and exchange names carry it, so that runs against one broker never meet.
my $RUN = sprintf '%08x', rand 2**32;

sub unique { "interop-$RUN-$_[0]" }

# Calls a method that answers through callbacks, and waits for its answer.
sub wait_for {
    my ($object, $method, %arguments) = @_;
    my $answer = AE::cv;
    $object->$method(
        %arguments,
        on_success => sub { $answer->send(@_) },
        on_failure => sub { $answer->croak(ref $_[0] ? JSON::PP->new->allow_blessed->encode($_[0]) : "@_") },
    );
    return $answer->recv;
}

sub same {
    my ($what, $actual, $expected) = @_;
    my $json = JSON::PP->new->canonical->allow_nonref;
    my ($found, $wanted) = map { $json->encode($_) } $actual, $expected;
    die "$what: expected $wanted, got $found\n" if $found ne $wanted;
}

sub connection {
    my ($uri) = @_;
    my ($user, $password, $host, $port) = $uri =~ m{^amqp://(.*?):(.*?)\@(.*?):(\d+)} or die "no such address: $uri\n";
    my $client = AnyEvent::RabbitMQ->new->load_xml_spec;
    wait_for($client, 'connect', host => $host, port => $port, user => $user, pass => $password, vhost => '/', timeout => 10);
    return $client;
}

sub declare {
    my ($channel, $name) = @_;
    wait_for($channel, 'declare_queue', queue => unique($name), durable => 1);
    return unique($name);
}

sub ready {
    my ($channel, $queue) = @_;
    return wait_for($channel, 'declare_queue', queue => $queue, passive => 1)->method_frame->message_count;
}

# A consumer; gives a function that waits for its next delivery.
sub consume {
    my ($channel, $queue) = @_;
    my (@arrived, $waiting);
    wait_for($channel, 'consume', queue => $queue, no_ack => 0, on_consume => sub {
        push @arrived, shift;
        $waiting->send if $waiting;
    });
    return sub {
        until (@arrived) { $waiting = AE::cv; $waiting->recv; undef $waiting }
        return shift @arrived;
    };
}

sub expect {
    my ($next, $body, $redelivered) = @_;
    my $delivery = $next->();
    my $method = $delivery->{deliver}->method_frame;
    same('delivery', [$delivery->{body}->payload, $method->redelivered ? 1 : 0], [$body, $redelivered]);
    return $method->delivery_tag;
}

my %SCENARIOS = (
    publish_confirms => sub {
        my ($channel) = @_;
        my $queue = declare($channel, 'publish-confirms');
        wait_for($channel, 'confirm');
        my ($all, $left) = (AE::cv, 500);
        for my $number (1 .. 500) {
            $channel->publish(
                routing_key => $queue, body => "$number", header => { delivery_mode => 2 },
                on_ack => sub { $all->send unless --$left },
                on_nack => sub { $all->croak('a nack') },
            );
        }
        $all->recv;
        same('ready', ready($channel, $queue) + 0, 500);
        wait_for($channel, 'delete_queue', queue => $queue);
    },
    nack_requeue => sub {
        my ($channel) = @_;
        my $queue = declare($channel, 'nack-requeue');
        $channel->publish(routing_key => $queue, body => $_) for 'a', 'b';
        wait_for($channel, 'qos', prefetch_count => 1);
        my $next = consume($channel, $queue);
        $channel->reject(delivery_tag => expect($next, 'a', 0), requeue => 1);
        $channel->reject(delivery_tag => expect($next, 'a', 1), requeue => 0);
        $channel->ack(delivery_tag => expect($next, 'b', 0));
        same('ready', ready($channel, $queue) + 0, 0);
        wait_for($channel, 'delete_queue', queue => $queue);
    },
    mandatory_return => sub {
        my ($channel) = @_;
        wait_for($channel, 'confirm');
        my $returned = AE::cv;
        $channel->publish(
            exchange => 'amq.direct', routing_key => unique('nowhere'), body => 'back', mandatory => 1,
            on_return => sub { $returned->send(shift) },
        );
        my $method = $returned->recv->method_frame;
        same('returned', [$method->reply_code + 0, $method->reply_text], [312, 'NO_ROUTE']);
    },
    transactions => sub {
        my ($channel) = @_;
        my $queue = declare($channel, 'tx');
        wait_for($channel, 'select_tx');
        $channel->publish(routing_key => $queue, body => 'rolled back');
        wait_for($channel, 'rollback_tx');
        $channel->publish(routing_key => $queue, body => 'new');
        same('before the commit', ready($channel, $queue) + 0, 0);
        wait_for($channel, 'commit_tx');
        same('body', wait_for($channel, 'get', queue => $queue, no_ack => 1)->{body}->payload, 'new');
        wait_for($channel, 'delete_queue', queue => $queue);
    },
    # Net::AMQP cannot read 64-bit integers in headers, which a retried message has (as dead letters of every broker do).
    settle => sub {
        my ($channel) = @_;
        my ($queue, $target) = (declare($channel, 'settled'), declare($channel, 'settled-target'));
        $channel->publish(routing_key => $queue, body => 'question');
        my $tag = expect(consume($channel, $queue), 'question', 0);
        wait_for($channel, 'confirm');
        my $confirmed = AE::cv;
        $channel->publish(
            exchange => 'amq.settle', routing_key => '', body => '42', on_ack => sub { $confirmed->send },
            header => { headers => {
                'x-op' => 'ack-and-publish', 'x-delivery-tag' => $tag, 'x-exchange' => '', 'x-routing-key' => $target,
            } },
        );
        $confirmed->recv;
        same('body', wait_for($channel, 'get', queue => $target, no_ack => 1)->{body}->payload, '42');
        wait_for($channel, 'delete_queue', queue => $_) for $queue, $target;
    },
);

sub play {
    my ($name, $uri) = @_;
    my $started = time;
    my $detail = '';
    eval {
        local $SIG{ALRM} = sub { die "still waiting after $SCENARIO_SECONDS s\n" };
        alarm $SCENARIO_SECONDS;
        my $client = connection($uri);
        # A failure must not destroy the client, which would wait for its close in vain.
        eval { $SCENARIOS{$name}->(wait_for($client, 'open_channel')); 1 } or $detail = "$@";
        wait_for($client, 'close');
        1;
    } or $detail ||= "$@";
    alarm 0;
    my $ok = $detail eq '' ? JSON::PP::true : JSON::PP::false;
    printf qq({"scenario": "%s", "ok": %s, "seconds": %.3f, "detail": %s}\n),
        $name, $ok ? 'true' : 'false', time - $started, JSON::PP->new->ascii->allow_nonref->encode($detail);
    return $ok;
}

$| = 1;
my ($uri, @names) = @ARGV;
die "usage: scenarios.pl amqp://USER:PASSWORD\@HOST:PORT [SCENARIO...]\n" unless $uri;
my $failed = grep { !play($_, $uri) } @names ? @names : sort keys %SCENARIOS;
exit($failed ? 1 : 0);

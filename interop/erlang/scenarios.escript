#!/usr/bin/env escript
%% Runs interop scenarios with RabbitMQ's own Erlang client: `escript scenarios.escript URI [SCENARIO...]` prints one JSON
%% line for each. ERL_LIBS leads to the client.

-mode(compile).
-include_lib("amqp_client/include/amqp_client.hrl").

main([Uri | Names]) ->
    logger:set_primary_config(level, none),
    {ok, _} = application:ensure_all_started(amqp_client),
    All = [{"publish_confirms", fun publish_confirms/2}, {"nack_requeue", fun nack_requeue/2},
           {"mandatory_return", fun mandatory_return/2}, {"header_types", fun header_types/2},
           {"channel_error", fun channel_error/2}, {"transactions", fun transactions/2},
           {"direct_reply_to", fun direct_reply_to/2}, {"settle", fun settle/2}],
    Results = [report(Name, Play, Uri) || {Name, Play} <- All, Names =:= [] orelse lists:member(Name, Names)],
    halt(case lists:all(fun(Ok) -> Ok end, Results) of true -> 0; false -> 1 end).

report(Name, Play, Uri) ->
    Started = erlang:monotonic_time(millisecond),
    %% A process of its own, so that whatever its client does fails the scenario alone; and within time.
    {Pid, Ref} = spawn_monitor(fun() -> play(Play, Uri), exit(passed) end),
    Detail = receive
        {'DOWN', Ref, process, Pid, passed} -> "";
        {'DOWN', Ref, process, Pid, Why} -> io_lib:format("~0p", [Why])
    after 30000 ->
        exit(Pid, kill),
        "still waiting after 30 s"
    end,
    Seconds = (erlang:monotonic_time(millisecond) - Started) / 1000,
    Escaped = [case C of $" -> $'; $\\ -> $/; _ when C < 32; C > 126 -> $?; _ -> C end || C <- lists:flatten(Detail)],
    io:format("{\"scenario\": \"~s\", \"ok\": ~p, \"seconds\": ~.3f, \"detail\": \"~s\"}~n",
              [Name, Detail =:= "", Seconds, Escaped]),
    Detail =:= "".

play(Play, Uri) ->
    {ok, Parameters} = amqp_uri:parse(Uri),
    {ok, Connection} = amqp_connection:start(Parameters),
    {ok, Channel} = amqp_connection:open_channel(Connection),
    Play(Channel, Connection),
    ok = amqp_connection:close(Connection).

same(_, Value, Value) -> ok;
same(What, Actual, Expected) -> exit({What, {expected, Expected}, {got, Actual}}).

declare(Channel, Name) ->
    Queue = iolist_to_binary(["interop-erl-", os:getpid(), "-", Name]),
    #'queue.declare_ok'{} = amqp_channel:call(Channel, #'queue.declare'{queue = Queue, durable = true}),
    Queue.

publish(Channel, Queue, Body) ->
    publish(Channel, #'basic.publish'{routing_key = Queue}, Body, []).

publish(Channel, Publish, Body, Headers) ->
    Properties = #'P_basic'{headers = Headers, delivery_mode = 2, message_id = <<"m1">>},
    ok = amqp_channel:call(Channel, Publish, #amqp_msg{props = Properties, payload = Body}).

ready(Channel, Queue) ->
    #'queue.declare_ok'{message_count = Count} =
        amqp_channel:call(Channel, #'queue.declare'{queue = Queue, passive = true, durable = true}),
    Count.

get(Channel, Queue) ->
    {#'basic.get_ok'{}, Message} = amqp_channel:call(Channel, #'basic.get'{queue = Queue, no_ack = true}),
    Message.

delete(Channel, Queue) ->
    #'queue.delete_ok'{} = amqp_channel:call(Channel, #'queue.delete'{queue = Queue}).

consume(Channel, Queue) -> consume(Channel, Queue, false).

consume(Channel, Queue, NoAck) ->
    #'basic.consume_ok'{} = amqp_channel:subscribe(Channel, #'basic.consume'{queue = Queue, no_ack = NoAck}, self()),
    receive #'basic.consume_ok'{} -> ok end.

%% The next delivery, which must be this; its tag and the message.
delivery(Body, Redelivered) ->
    receive
        {#'basic.deliver'{delivery_tag = Tag, redelivered = Found}, #amqp_msg{payload = Payload} = Message} ->
            same(delivery, {Payload, Found}, {Body, Redelivered}),
            {Tag, Message}
    end.

publish_confirms(Channel, _) ->
    Queue = declare(Channel, "publish-confirms"),
    #'confirm.select_ok'{} = amqp_channel:call(Channel, #'confirm.select'{}),
    [publish(Channel, Queue, integer_to_binary(Number)) || Number <- lists:seq(1, 1000)],
    true = amqp_channel:wait_for_confirms(Channel, 20),
    same(ready, ready(Channel, Queue), 1000),
    [same(order, (get(Channel, Queue))#amqp_msg.payload, integer_to_binary(Number)) || Number <- lists:seq(1, 1000)],
    delete(Channel, Queue).

nack_requeue(Channel, _) ->
    Queue = declare(Channel, "nack-requeue"),
    publish(Channel, Queue, <<"a">>),
    publish(Channel, Queue, <<"b">>),
    #'basic.qos_ok'{} = amqp_channel:call(Channel, #'basic.qos'{prefetch_count = 1}),
    consume(Channel, Queue),
    {First, _} = delivery(<<"a">>, false),
    ok = amqp_channel:cast(Channel, #'basic.nack'{delivery_tag = First, requeue = true}),
    {Second, _} = delivery(<<"a">>, true),
    ok = amqp_channel:cast(Channel, #'basic.reject'{delivery_tag = Second, requeue = false}),
    delivery(<<"b">>, false),
    #'basic.recover_ok'{} = amqp_channel:call(Channel, #'basic.recover'{requeue = true}),
    {Last, _} = delivery(<<"b">>, true),
    ok = amqp_channel:cast(Channel, #'basic.ack'{delivery_tag = Last}),
    same(ready, ready(Channel, Queue), 0),
    delete(Channel, Queue).

mandatory_return(Channel, _) ->
    amqp_channel:register_return_handler(Channel, self()),
    amqp_channel:register_confirm_handler(Channel, self()),
    #'confirm.select_ok'{} = amqp_channel:call(Channel, #'confirm.select'{}),
    publish(Channel, #'basic.publish'{exchange = <<"amq.direct">>, routing_key = <<"nowhere at all">>, mandatory = true},
            <<"back">>, []),
    receive
        {#'basic.return'{reply_code = Code, reply_text = Text}, #amqp_msg{payload = Body}} ->
            same(returned, {Code, Text, Body}, {312, <<"NO_ROUTE">>, <<"back">>});
        #'basic.ack'{} -> exit('the confirm came without a return before it')
    end,
    receive #'basic.ack'{delivery_tag = 1} -> ok end.

header_types(Channel, _) ->
    %% Sorted by name, as the broker keeps them.
    Headers = [{<<"array">>, array, [{signedint, 1}, {longstr, <<"two">>}, {void, undefined}]},
               {<<"binary">>, binary, <<0, 255>>}, {<<"bool">>, bool, true}, {<<"byte">>, byte, -128},
               {<<"decimal">>, decimal, {2, 314}}, {<<"double">>, double, 0.1}, {<<"float">>, float, 0.5},
               {<<"long">>, long, -(1 bsl 63)}, {<<"longstr">>, longstr, <<"grün"/utf8>>}, {<<"short">>, short, -32768},
               {<<"signedint">>, signedint, -(1 bsl 31)},
               {<<"table">>, table, [{<<"deep">>, table, [{<<"er">>, bool, false}]}]},
               {<<"timestamp">>, timestamp, 1 bsl 31}, {<<"void">>, void, undefined}],
    Queue = declare(Channel, "header-types"),
    publish(Channel, #'basic.publish'{routing_key = Queue}, <<>>, Headers),
    #amqp_msg{props = #'P_basic'{headers = Found}} = get(Channel, Queue),
    same(headers, Found, Headers),
    delete(Channel, Queue).

channel_error(Channel, Connection) ->
    Queue = declare(Channel, "channel-error"),
    {ok, Other} = amqp_connection:open_channel(Connection),
    {{shutdown, {server_initiated_close, Code, Text}}, _} =
        try amqp_channel:call(Other, #'queue.declare'{queue = <<"absent">>, passive = true})
        catch exit:Why -> Why end,
    same(refusal, {Code, Text}, {404, <<"NOT_FOUND - no queue 'absent' in vhost '/'">>}),
    same(ready, ready(Channel, Queue), 0),
    delete(Channel, Queue).

transactions(Channel, _) ->
    Queue = declare(Channel, "tx"),
    #'tx.select_ok'{} = amqp_channel:call(Channel, #'tx.select'{}),
    publish(Channel, Queue, <<"rolled back">>),
    #'tx.rollback_ok'{} = amqp_channel:call(Channel, #'tx.rollback'{}),
    publish(Channel, Queue, <<"new">>),
    same(before, ready(Channel, Queue), 0),
    #'tx.commit_ok'{} = amqp_channel:call(Channel, #'tx.commit'{}),
    same(body, (get(Channel, Queue))#amqp_msg.payload, <<"new">>),
    delete(Channel, Queue).

direct_reply_to(Channel, Connection) ->
    Queue = declare(Channel, "rpc"),
    {ok, Server} = amqp_connection:open_channel(Connection),
    consume(Channel, <<"amq.rabbitmq.reply-to">>, true),
    Question = #'P_basic'{reply_to = <<"amq.rabbitmq.reply-to">>, correlation_id = <<"7">>},
    ok = amqp_channel:call(Channel, #'basic.publish'{routing_key = Queue}, #amqp_msg{props = Question, payload = <<"2+2">>}),
    consume(Server, Queue),
    {Tag, #amqp_msg{props = #'P_basic'{reply_to = ReplyTo, correlation_id = Id}}} = delivery(<<"2+2">>, false),
    ok = amqp_channel:call(Server, #'basic.publish'{routing_key = ReplyTo},
                           #amqp_msg{props = #'P_basic'{correlation_id = Id}, payload = <<"4">>}),
    {_, #amqp_msg{props = #'P_basic'{correlation_id = Answered}}} = delivery(<<"4">>, false),
    same(correlation, Answered, <<"7">>),
    ok = amqp_channel:cast(Server, #'basic.ack'{delivery_tag = Tag}),
    delete(Server, Queue).

settle(Channel, _) ->
    Queue = declare(Channel, "settled"),
    Target = declare(Channel, "settled-target"),
    [publish(Channel, Queue, Body) || Body <- [<<"retried">>, <<"answered">>]],
    consume(Channel, Queue),
    {Retried, _} = delivery(<<"retried">>, false),
    {Answered, _} = delivery(<<"answered">>, false),
    Settle = #'basic.publish'{exchange = <<"amq.settle">>},
    publish(Channel, Settle, <<>>, [{<<"x-op">>, longstr, <<"retry">>}, {<<"x-delivery-tag">>, long, Retried},
                                    {<<"x-delay">>, signedint, 100}]),
    publish(Channel, Settle, <<"42">>, [{<<"x-op">>, longstr, <<"ack-and-publish">>}, {<<"x-delivery-tag">>, long, Answered},
                                        {<<"x-exchange">>, longstr, <<>>}, {<<"x-routing-key">>, longstr, Target}]),
    {Again, #amqp_msg{props = #'P_basic'{headers = Headers}}} = delivery(<<"retried">>, true),
    {_, _, Attempts} = lists:keyfind(<<"x-delivery-count">>, 1, Headers),
    same(attempts, Attempts, 1),
    ok = amqp_channel:cast(Channel, #'basic.ack'{delivery_tag = Again}),
    same(ready, ready(Channel, Queue), 0),
    same(answer, (get(Channel, Target))#amqp_msg.payload, <<"42">>),
    delete(Channel, Queue),
    delete(Channel, Target).

# What every client has to show.

require "digest"
require "socket"
require_relative "steps"

module Basics
  extend Steps

  def self.declare_bind(uri)
    channel_to(uri) do |channel|
      queue = declare(channel, "declare-bind")
      [
        ["direct", "red", "red", {}],
        ["fanout", "", "anything", {}],
        ["topic", "#.red.*", "red.very", {}],
        ["headers", "", "", { "x-match" => "any", "colour" => "red", "size" => 70_000 }]
      ].each do |kind, binding_key, routing_key, arguments|
        exchange = channel.exchange(unique(kind), type: kind, durable: true)
        source = channel.fanout(unique("source-of-#{kind}"), auto_delete: true)
        exchange.bind(source)
        queue.bind(exchange, routing_key: binding_key, arguments: arguments)
        source.publish(kind, routing_key: routing_key, headers: { size: 70_000 })
        channel.wait_for_confirms
        info, _, body = queue.pop
        same([info.exchange, info.routing_key, body], [source.name, routing_key, kind], kind)
        queue.unbind(exchange, routing_key: binding_key, arguments: arguments)
        source.publish("lost", routing_key: routing_key)
        channel.wait_for_confirms
        same(queue.pop.first, nil, "what came after the unbind")
        exchange.delete
      end
      same(channel.queue("", exclusive: true).name.start_with?("amq.gen-"), true, "server-named")
      queue.delete
    end
  end

  def self.publish_confirms(uri)
    channel_to(uri) do |channel|
      queue = declare(channel, "publish-confirms")
      1000.times { |number| channel.default_exchange.publish(number.to_s, routing_key: queue.name, persistent: true) }
      same(channel.wait_for_confirms, true, "confirms")
      same(queue.message_count, 1000, "ready")
      same(bodies(queue), Array.new(1000, &:to_s), "order")
      queue.delete
    end
  end

  def self.consume_prefetch(uri)
    channel_to(uri) do |channel|
      queue = declare(channel, "consume-prefetch")
      20.times { |number| publish(channel, queue, number.to_s) }
      channel.prefetch(5)
      arrived = consume(queue)
      taken = take(arrived, 5)
      same(queue.message_count, 15, "ready with five unacked")
      channel.ack(taken[2].first.delivery_tag, true)
      taken += take(arrived, 3)
      same(queue.message_count, 12, "ready after three acks")
      channel.ack(taken.last.first.delivery_tag, true)
      taken += take(arrived, 5)
      channel.ack(taken.last.first.delivery_tag, true)
      taken += take(arrived, 5)
      same(taken.map { |_, _, body| body.to_i }, (0...18).to_a, "order")
      queue.delete
    end
  end

  def self.nack_requeue(uri)
    channel_to(uri) do |channel|
      queue = declare(channel, "nack-requeue")
      %w[a b c].each { |body| publish(channel, queue, body) }
      channel.prefetch(1)
      arrived = consume(queue)
      expect = lambda do |body, redelivered|
        info, _, found = arrived.pop
        same([found, info.redelivered?], [body, redelivered], "delivery")
        info.delivery_tag
      end
      channel.nack(expect.call("a", false), false, true)
      channel.reject(expect.call("a", true), true)
      channel.nack(expect.call("a", true), false, false)
      channel.reject(expect.call("b", false), false)
      expect.call("c", false)
      channel.recover
      channel.ack(expect.call("c", true))
      same(queue.message_count, 0, "ready at the end")
      queue.delete
    end
  end

  def self.mandatory_return(uri)
    channel_to(uri) do |channel|
      exchange = channel.direct("amq.direct")
      returned = Queue.new
      exchange.on_return { |*it| returned << it }
      exchange.publish("back", routing_key: unique("nowhere"), mandatory: true, message_id: "m1")
      channel.wait_for_confirms
      info, properties, body = returned.pop
      same([info.reply_code, info.reply_text, info.exchange, info.routing_key],
           [312, "NO_ROUTE", "amq.direct", unique("nowhere")], "reply and route")
      same([properties.message_id, body], %w[m1 back], "content")
    end
  end

  def self.large_body(uri)
    channel_to(uri) do |channel|
      queue = declare(channel, "large-body")
      body = Random.bytes(10 << 20)
      publish(channel, queue, body)
      same(Digest::SHA256.hexdigest(queue.pop.last), Digest::SHA256.hexdigest(body), "SHA-256 of 10 MiB")
      queue.delete
    end
  end

  def self.empty_body(uri)
    channel_to(uri) do |channel|
      queue = declare(channel, "empty-body")
      publish(channel, queue, "", message_id: "empty")
      publish(channel, queue, "next")
      taken = take(consume(queue), 2)
      same(taken.map(&:last), ["", "next"], "bodies")
      same(taken[0][1].message_id, "empty", "its properties")
      queue.delete
    end
  end

  def self.header_types(uri)
    headers = {
      "boolean" => true, "integer" => -(2**31), "long" => -(2**63), "double" => 0.1, "string" => "grün 🐇",
      "empty string" => "", "timestamp" => Time.at(2**31), "void" => nil, "array" => [1, "two", false, { "five" => 5 }],
      "empty array" => [], "table" => { "deep" => { "deeper" => { "deepest" => [0.25] } } }, "empty table" => {}
    }
    channel_to(uri) do |channel|
      queue = declare(channel, "header-types")
      publish(channel, queue, "", headers: headers)
      received = queue.pop[1].headers
      # Bunny gives strings as octets.
      same(received.transform_values { |it| it.is_a?(String) ? it.dup.force_encoding("utf-8") : it }, headers, "headers")
      queue.delete
    end
  end

  def self.properties(uri)
    sent = {
      content_type: "text/plain", content_encoding: "utf-8", headers: { "k" => "v" }, delivery_mode: 2, priority: 9,
      correlation_id: "correlation", reply_to: "answers", expiration: "60000", message_id: "message",
      timestamp: Time.at(1_700_000_000), type: "kind", user_id: "guest", app_id: "application", cluster_id: "cluster"
    }
    channel_to(uri) do |channel|
      queue = declare(channel, "properties")
      channel.basic_publish("all", "", queue.name, { **sent, timestamp: sent[:timestamp].to_i })
      channel.wait_for_confirms
      same(queue.pop[1].to_hash, sent, "all fourteen properties")
      queue.delete
    end
  end

  def self.channel_error(uri)
    channel_to(uri) do |channel, connection|
      queue = declare(channel, "channel-error")
      absent = unique("absent")
      [
        ["NOT_FOUND - no queue '#{absent}' in vhost '/'", ->(other) { other.queue(absent, passive: true) }],
        ["NOT_FOUND - no exchange '#{absent}' in vhost '/'", ->(other) { other.basic_publish("", absent, "key") }],
        ["PRECONDITION_FAILED - inequivalent arg 'durable' for queue '#{queue.name}'", ->(other) { other.queue(queue.name, durable: false) }],
        ["PRECONDITION_FAILED - unknown delivery tag 99", ->(other) { other.basic_ack(99, false) }]
      ].each do |words, step|
        text = refusal(connection, &step)
        same(text.include?(words), true, text)
      end
      same(queue.message_count, 0, "the first channel still works")
      queue.delete
    end
  end

  def self.reconnect(uri)
    channel_to(uri) do |channel|
      queue = declare(channel, "reconnect")
      publish(channel, queue, "kept")
      same(consume(queue).pop.first.redelivered?, false, "first delivery")
    end
    # Closed by us, with the message unacked. The next socket is dropped, and the client recovers by itself.
    recovered = Queue.new
    channel_to(uri, network_recovery_interval: 0.1, recovery_completed: -> { recovered << true }) do |channel, connection|
      mine = channel.queue("", exclusive: true)
      answers = consume(mine)
      queue = declare(channel, "reconnect")
      arrived = consume(queue)
      same(arrived.pop.first.redelivered?, true, "delivery after an orderly close")
      connection.transport.socket.shutdown(Socket::SHUT_RDWR) # without a word to the broker
      recovered.pop
      info, _, body = arrived.pop
      same([info.redelivered?, body], [true, "kept"], "delivery after a dropped socket")
      channel.ack(info.delivery_tag)
      # Bunny has made a new server-named queue, with the old consumer.
      channel.default_exchange.publish("again", routing_key: mine.name)
      same(answers.pop.last, "again", "delivery from the recovered exclusive queue")
      same(queue.message_count, 0, "ready at the end")
      queue.delete
    end
  end

  SCENARIOS = %w[
    declare_bind publish_confirms consume_prefetch nack_requeue mandatory_return large_body empty_body header_types
    properties channel_error reconnect
  ].to_h { |name| [name, method(name)] }.freeze
end

# What queues can be asked to do, and time in them.

require_relative "steps"

module Queues
  extend Steps

  def self.length_limits(uri)
    channel_to(uri) do |channel|
      dead = declare(channel, "limit-dead")
      [
        ["drop-head", true, %w[1 2], %w[0]],
        ["reject-publish", false, %w[0 1], []],
        ["reject-publish-dlx", false, %w[0 1], %w[2]]
      ].each do |overflow, acked, kept, dead_letters|
        queue = declare(channel, "limit-#{overflow}", overflow: overflow, max_length: 2,
                                                      dead_letter_exchange: "", dead_letter_routing_key: dead.name)
        same(%w[0 1].map { |body| publish(channel, queue, body) }, [true, true], "acks")
        same(publish(channel, queue, "2"), acked, "#{overflow}: an ack")
        same(bodies(queue), kept, "#{overflow}: what is kept")
        soon("dead letters arrived") { dead.message_count == dead_letters.size }
        same(bodies(dead), dead_letters, "#{overflow}: dead letters")
        queue.delete
      end
      dead.delete
    end
  end

  def self.dead_letters(uri)
    channel_to(uri) do |channel|
      dead = declare(channel, "dead")
      queue = declare(channel, "dead-rejected", dead_letter_exchange: "", dead_letter_routing_key: dead.name)
      publish(channel, queue, "first", headers: { "own" => 1 })
      channel.reject(queue.pop(manual_ack: true).first.delivery_tag, false)
      _, properties, body = consume(dead).pop
      death = properties.headers["x-death"].first
      same(death.delete("time").class, Time, "when")
      expected = { "count" => 1, "reason" => "rejected", "queue" => queue.name, "exchange" => "",
                   "routing-keys" => [queue.name] }
      same([death, body], [expected, "first"], "x-death")
      same(properties.headers["x-first-death-reason"], "rejected", "x-first-death-reason")
      same(properties.headers["own"], 1, "the publisher's header")
      [queue, dead].each(&:delete)
    end
  end

  def self.priorities(uri)
    channel_to(uri) do |channel|
      queue = declare(channel, "priorities", max_priority: 5)
      [0, 1, 5, 9, 1].each { |priority| publish(channel, queue, priority.to_s, priority: priority) }
      same(bodies(queue), %w[5 9 1 1 0], "order")
      queue.delete
    end
  end

  def self.direct_reply_to(uri)
    channel_to(uri) do |client|
      channel_to(uri) do |server, connection|
        queue = declare(server, "rpc")
        answers = Queue.new
        client.basic_consume("amq.rabbitmq.reply-to", "", true) { |_, properties, body| answers << [body, properties] }
        publish(client, queue, "2+2", reply_to: "amq.rabbitmq.reply-to", correlation_id: "7")
        info, properties, = consume(queue).pop
        server.default_exchange.publish("4", routing_key: properties.reply_to, correlation_id: properties.correlation_id)
        server.ack(info.delivery_tag)
        body, properties = answers.pop
        same([body, properties.correlation_id], %w[4 7], "answer")
        text = refusal(connection) do |other|
          other.basic_publish("", "", queue.name, reply_to: "amq.rabbitmq.reply-to")
        end
        same(text.include?("PRECONDITION_FAILED - fast reply consumer does not exist"), true, text)
        queue.delete
      end
    end
  end

  def self.global_qos(uri)
    channel_to(uri) do |channel|
      queues = [declare(channel, "qos-0"), declare(channel, "qos-1")]
      10.times { |number| publish(channel, queues[number % 2], "") }
      channel.prefetch(3, true)
      arrived = Queue.new
      queues.each { |queue| queue.subscribe(manual_ack: true) { |info, *| arrived << info } }
      taken = take(arrived, 3)
      same(queues.sum(&:message_count), 7, "left, with one limit for two consumers")
      channel.ack(taken.last.delivery_tag, true)
      take(arrived, 3)
      same(queues.sum(&:message_count), 4, "left after three acks")
      queues.each(&:delete)
    end
  end

  def self.transactions(uri)
    channel_to(uri) do |watcher, connection|
      channel = connection.create_channel
      queue = channel.queue(unique("tx"), durable: true)
      publish(watcher, queue, "old")
      channel.tx_select
      tag = queue.pop(manual_ack: true).first.delivery_tag
      channel.default_exchange.publish("rolled back", routing_key: queue.name)
      channel.ack(tag)
      channel.tx_rollback
      same(queue.message_count, 0, "ready after the rollback")
      channel.default_exchange.publish("new", routing_key: queue.name)
      channel.ack(tag)
      channel.tx_commit
      same(bodies(watcher.queue(queue.name, passive: true)), ["new"], "after the commit")
      queue.delete
    end
  end

  def self.quorum_queue(uri)
    channel_to(uri) do |channel|
      dead = declare(channel, "quorum-dead")
      queue = declare(channel, "quorum", queue_type: "quorum", delivery_limit: 2,
                                         dead_letter_exchange: "", dead_letter_routing_key: dead.name)
      publish(channel, queue, "poison")
      arrived = consume(queue)
      counts = Array.new(3) do
        info, properties, = arrived.pop
        channel.reject(info.delivery_tag, true)
        (properties.headers || {})["x-delivery-count"]
      end
      same(counts, [nil, 1, 2], "x-delivery-count")
      soon("the poison message is dead-lettered") { dead.message_count == 1 }
      [queue, dead].each(&:delete)
    end
  end

  def self.delays(uri)
    channel_to(uri) do |channel|
      queue = declare(channel, "delayed")
      source = channel.exchange(unique("delayed-exchange"), type: "x-delayed-message", durable: true,
                                                            arguments: { "x-delayed-type" => "direct" })
      queue.bind(source, routing_key: "key")
      publish(channel, queue, "fourth", headers: { "x-opt-delivery-time" => Time.now + 2 })
      source.publish("third", routing_key: "key", headers: { "x-delay" => 600 })
      publish(channel, queue, "second", headers: { "x-opt-delivery-delay" => 300 })
      source.publish("first", routing_key: "key", headers: { "x-delay" => -1 })
      channel.wait_for_confirms
      same(queue.message_count, 1, "the one without a delay is there")
      soon("all came") { queue.message_count == 4 }
      same(bodies(queue), %w[first second third fourth], "order")
      source.delete
      queue.delete
    end
  end

  def self.settle(uri)
    channel_to(uri) do |channel, connection|
      target = declare(channel, "settled-target")
      refused = declare(channel, "settled-refused")
      queue = declare(channel, "settled", dead_letter_exchange: "", dead_letter_routing_key: refused.name)
      %w[retried answered rejected].each { |body| publish(channel, queue, body) }
      arrived = consume(queue)
      order = lambda do |delivery, **headers|
        named = headers.to_h { |key, value| ["x-#{key.to_s.tr('_', '-')}", value] }
        named["x-delivery-tag"] = delivery.first.delivery_tag.to_i
        channel.basic_publish("42", "amq.settle", "", headers: named, persistent: true)
      end
      retried, answered, rejected = take(arrived, 3)
      order.call(retried, op: "retry", delay: 100)
      order.call(answered, op: "ack-and-publish", exchange: "", routing_key: target.name)
      order.call(rejected, op: "reject", reason: "no such customer", annotations: { "customer" => 7 })
      same(channel.wait_for_confirms, true, "confirms")
      same(bodies(target), ["42"], "published with the ack")
      soon("the rejected one is dead-lettered") { refused.message_count == 1 }
      headers = refused.pop[1].headers
      same([headers["x-reason"], headers["customer"]], ["no such customer", 7], "why")
      info, properties, body = arrived.pop
      same([body, properties.headers["x-delivery-count"]], ["retried", 1], "the retry")
      channel.ack(info.delivery_tag)
      same(queue.message_count, 0, "left")
      text = refusal(connection) do |other|
        other.basic_publish("", "amq.settle", "", headers: { "x-op" => "retry", "x-delivery-tag" => 99 })
      end
      same(text.include?("PRECONDITION_FAILED"), true, text)
      [queue, target, refused].each(&:delete)
    end
  end

  SCENARIOS = %w[
    length_limits dead_letters priorities direct_reply_to global_qos transactions quorum_queue delays settle
  ].to_h { |name| [name, method(name)] }.freeze
end

# What every scenario needs: a channel, names of this run, and things that are awaited.

module Steps
  # Queue and exchange names carry it, so that runs against one broker never meet.
  RUN = SecureRandom.hex(4)

  module_function

  def unique(name)
    "interop-#{RUN}-#{name}"
  end

  def same(actual, expected, what)
    raise "#{what}: expected #{expected.inspect}, got #{actual.inspect}" unless actual == expected
  end

  # Gives a channel with confirms on a connection of its own, and closes both.
  def channel_to(uri, **options)
    # Its logger writes to standard output, which is ours.
    connection = Bunny.new(uri, log_level: :fatal, **options).start
    channel = connection.create_channel
    channel.confirm_select
    yield channel, connection
  ensure
    connection.close if connection&.open?
  end

  # A durable queue of this run.
  def declare(channel, name, **arguments)
    named = arguments.to_h { |key, value| ["x-#{key.to_s.tr('_', '-')}", value] }
    channel.queue(unique(name), durable: true, arguments: named)
  end

  # Publishes through the default exchange; false when the broker nacked it.
  def publish(channel, queue, body, **properties)
    channel.default_exchange.publish(body, routing_key: queue.name, persistent: true, **properties)
    channel.wait_for_confirms
  end

  # Everything that waits in a queue, taken out of it.
  def bodies(queue)
    found = []
    loop do
      body = queue.pop.last
      return found if body.nil?

      found << body
    end
  end

  # A consumer; its deliveries wait in the returned queue as [info, properties, body].
  def consume(queue, **options)
    arrived = Queue.new
    queue.subscribe(manual_ack: true, **options) { |*delivery| arrived << delivery }
    arrived
  end

  def take(arrived, count)
    Array.new(count) { arrived.pop }
  end

  # Waits until the block is true.
  def soon(what)
    deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + 20
    until yield
      raise "gave up waiting until #{what}" if Process.clock_gettime(Process::CLOCK_MONOTONIC) > deadline

      sleep 0.01
    end
  end

  # The text with which the broker closes the channel of a step.
  def refusal(connection)
    other = connection.create_channel
    told = nil
    other.on_error { |_, close| told = close.reply_text }
    yield other
    soon("the channel is closed") { other.closed? }
    other.prefetch(1) # raises, and says why the channel was closed
    raise "a closed channel went on"
  rescue Bunny::ChannelLevelException, Bunny::ChannelAlreadyClosed => e
    told || e.message
  end
end

# Runs the interop scenarios with Bunny: `ruby main.rb URI [SCENARIO...]` prints one JSON line for each.

require "bunny"
require "json"
require "securerandom"
require "timeout"

require_relative "basics"
require_relative "queues"

SCENARIO_SECONDS = 30
SCENARIOS = { **Basics::SCENARIOS, **Queues::SCENARIOS }.freeze

def play(name, uri)
  started = Process.clock_gettime(Process::CLOCK_MONOTONIC)
  detail = ""
  begin
    # A broker that stays silent fails the scenario instead of hanging it.
    Timeout.timeout(SCENARIO_SECONDS) { SCENARIOS[name].call(uri) }
  rescue StandardError => e
    warn(e.full_message)
    detail = "#{e.class}: #{e.message}"
  end
  seconds = (Process.clock_gettime(Process::CLOCK_MONOTONIC) - started).round(3)
  puts JSON.generate(scenario: name, ok: detail.empty?, seconds: seconds, detail: detail)
  $stdout.flush
  detail.empty?
end

uri, *names = ARGV
unknown = names - SCENARIOS.keys
abort("usage: main.rb amqp://USER:PASSWORD@HOST:PORT [#{SCENARIOS.keys.join('|')}]...") if uri.nil? || unknown.any?
all_ok = (names.empty? ? SCENARIOS.keys : names).map { |name| play(name, uri) }.all?
exit!(all_ok ? 0 : 1) # a failed scenario may have left threads behind

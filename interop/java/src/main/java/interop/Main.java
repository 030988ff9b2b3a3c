package interop;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/** Runs the interop scenarios with the Java client: {@code Main URI [SCENARIO...]} prints one JSON line for each. */
public final class Main {
    private static final int SCENARIO_SECONDS = 30;

    /** Fails by throwing. */
    interface Scenario {
        void play(String uri) throws Exception;
    }

    private Main() {}

    public static void main(String[] arguments) {
        Map<String, Scenario> scenarios = new LinkedHashMap<>();
        Topology.register(scenarios);
        Deliveries.register(scenarios);
        Contents.register(scenarios);
        Queues.register(scenarios);
        Time.register(scenarios);
        run(scenarios, arguments);
    }

    /** Plays what the arguments name, or all, and ends the program. */
    static void run(Map<String, Scenario> scenarios, String[] arguments) {
        List<String> names = new ArrayList<>(List.of(arguments));
        if (names.isEmpty() || !scenarios.keySet().containsAll(names.subList(1, names.size()))) {
            System.err.println("usage: Main amqp://USER:PASSWORD@HOST:PORT " + scenarios.keySet());
            System.exit(2);
        }
        String uri = names.remove(0);
        boolean allOk = true;
        for (String name : names.isEmpty() ? scenarios.keySet() : names) {
            allOk &= report(name, scenarios.get(name), uri);
        }
        // A failed scenario may have left a connection open, whose threads would keep the process alive.
        System.exit(allOk ? 0 : 1);
    }

    private static boolean report(String name, Scenario scenario, String uri) {
        long started = System.nanoTime();
        String detail = play(scenario, uri);
        double seconds = (System.nanoTime() - started) / 1e9;
        System.out.printf(
                Locale.ROOT,
                "{\"scenario\": \"%s\", \"ok\": %b, \"seconds\": %.3f, \"detail\": \"%s\"}%n",
                name, detail.isEmpty(), seconds, escape(detail));
        return detail.isEmpty();
    }

    /** Returns what went wrong, or nothing. A broker that stays silent fails the scenario instead of hanging it. */
    private static String play(Scenario scenario, String uri) {
        CompletableFuture<Void> done = CompletableFuture.runAsync(() -> {
            try {
                scenario.play(uri);
            } catch (Exception | AssertionError problem) {
                throw new CompletionException(problem);
            }
        }, task -> new Thread(task, "scenario").start());
        try {
            done.get(SCENARIO_SECONDS, TimeUnit.SECONDS);
            return "";
        } catch (ExecutionException problem) {
            problem.getCause().printStackTrace();
            return problem.getCause().toString();
        } catch (TimeoutException problem) {
            return "still waiting after " + SCENARIO_SECONDS + " s";
        } catch (InterruptedException problem) {
            return problem.toString();
        }
    }

    private static String escape(String text) {
        StringBuilder json = new StringBuilder();
        for (char letter : text.toCharArray()) {
            if (letter == '"' || letter == '\\') {
                json.append('\\').append(letter);
            } else if (letter < ' ' || letter > '~') {
                json.append(String.format("\\u%04x", (int) letter));
            } else {
                json.append(letter);
            }
        }
        return json.toString();
    }
}

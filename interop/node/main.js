// Runs the interop scenarios with a client: `node main.js CLIENT URI [SCENARIO...]` prints one JSON line for each.
'use strict';

// By client: the modules that hold its scenarios.
const CLIENTS = {
  amqplib: ['scenarios', 'routing', 'queues', 'limits', 'time', 'operated'],
  cloudamqp: ['cloudamqp'],
  'connection-manager': ['connection_manager'],
};

const SCENARIO_SECONDS = 30;

// A broker that stays silent fails the scenario instead of hanging it.
function tooLate() {
  let timer;
  const promise = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`still waiting after ${SCENARIO_SECONDS} s`)), SCENARIO_SECONDS * 1000);
  });
  return { promise, clear: () => clearTimeout(timer) };
}

async function play(name, scenario, uri) {
  const started = performance.now();
  const deadline = tooLate();
  let detail = '';
  try {
    await Promise.race([scenario(uri), deadline.promise]);
  } catch (error) {
    console.error(error);
    detail = String(error.message);
  }
  deadline.clear();
  const seconds = (performance.now() - started) / 1000;
  console.log(JSON.stringify({ scenario: name, ok: detail === '', seconds, detail }));
  return detail === '';
}

async function main([client, uri, ...names]) {
  const modules = CLIENTS[client] ?? [];
  const scenarios = Object.assign({}, ...modules.map((name) => require(`./${name}.js`)));
  const unknown = names.filter((name) => !Object.hasOwn(scenarios, name));
  if (uri === undefined || unknown.length > 0) {
    console.error(`usage: main.js ${Object.keys(CLIENTS).join('|')} amqp://USER:PASSWORD@HOST:PORT [${Object.keys(scenarios).join('|')}]...`);
    process.exit(2);
  }
  let allOk = true;
  for (const name of names.length > 0 ? names : Object.keys(scenarios)) {
    allOk = (await play(name, scenarios[name], uri)) && allOk;
  }
  // A failed scenario may have left a connection open, which would keep the process alive.
  process.exit(allOk ? 0 : 1);
}

main(process.argv.slice(2));

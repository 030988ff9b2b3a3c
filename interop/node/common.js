// What every scenario needs: a connection, names of this run, and consumers whose deliveries are awaited.
'use strict';

const amqplib = require('amqplib');
const assert = require('node:assert/strict');
const { randomBytes } = require('node:crypto');

// Queue and exchange names carry it, so that runs against one broker never meet.
const RUN = randomBytes(4).toString('hex');
const unique = (name) => `interop-${RUN}-${name}`;

/** Runs `body(connection)` and closes the connection, whatever comes. */
async function connected(uri, body) {
  const connection = await amqplib.connect(uri);
  // Without a listener node ends the process on a connection error; the failing call reports it too.
  connection.on('error', () => {});
  try {
    await body(connection);
  } finally {
    await connection.close().catch(() => {});
  }
}

/** Runs `body(channel, connection)` on a channel with confirms. */
const onChannel = (uri, body) => connected(uri, async (connection) => body(await connection.createConfirmChannel(), connection));

async function declare(channel, name) {
  return (await channel.assertQueue(unique(name), { durable: true })).queue;
}

/** A queue of this run with these arguments. */
const declared = async (channel, name, args) =>
  (await channel.assertQueue(unique(name), { durable: true, arguments: args })).queue;

/** Publishes through the default exchange and waits for the confirm; fails on a nack. */
async function publish(channel, queue, body, options) {
  channel.sendToQueue(queue, Buffer.from(body), options);
  await channel.waitForConfirms();
}

/** How many messages of a queue wait for a consumer. */
async function ready(channel, queue) {
  return (await channel.checkQueue(queue)).messageCount;
}

/** basic.get with automatic acknowledgement of a message that must be there. */
async function get(channel, queue) {
  const message = await channel.get(queue, { noAck: true });
  assert.notEqual(message, false, `${queue} is empty`);
  return message;
}

/** A consumer whose deliveries are awaited one by one. */
async function consume(channel, queue, options) {
  const arrived = [];
  const waiting = [];
  await channel.consume(queue, (message) => {
    const waiter = waiting.shift();
    if (waiter) waiter(message);
    else arrived.push(message);
  }, options);
  const next = () => (arrived.length > 0 ? Promise.resolve(arrived.shift()) : new Promise((wake) => waiting.push(wake)));
  const take = async (count) => {
    const taken = [];
    while (taken.length < count) taken.push(await next());
    return taken;
  };
  return { next, take };
}

const range = (count) => Array.from({ length: count }, (_, number) => number);

/** Everything that waits in a queue, taken out of it, as text. */
async function bodies(channel, queue) {
  const found = [];
  for (;;) {
    const message = await channel.get(queue, { noAck: true });
    if (!message) return found;
    found.push(message.content.toString());
  }
}

/** Waits until the condition holds. */
async function soon(condition, what) {
  const deadline = Date.now() + 20_000;
  while (!(await condition())) {
    assert.ok(Date.now() < deadline, `gave up waiting until ${what}`);
    await new Promise((wake) => setTimeout(wake, 10));
  }
}

/** The error with which the broker closes the channel of a step. */
async function refusal(connection, step) {
  const channel = await connection.createConfirmChannel();
  const closed = new Promise((resolve) => channel.on('error', resolve));
  // What the step awaits fails too, or never comes; the event tells why.
  Promise.resolve(step(channel)).catch(() => {});
  return closed;
}

module.exports = {
  unique, connected, onChannel, declare, declared, publish, ready, get, consume, range, bodies, soon, refusal,
};

// The scenarios with @cloudamqp/amqp-client, which has a codec of its own, and its session that heals itself.
'use strict';

const { AMQPClient, AMQPSession } = require('@cloudamqp/amqp-client');
const assert = require('node:assert/strict');
const { createHash, randomBytes } = require('node:crypto');
const { unique, range, soon } = require('./common.js');

const sha256 = (octets) => createHash('sha256').update(octets).digest('hex');

/** Runs `body(channel, connection)` on a channel with confirms; a publish awaits its own. */
async function onChannel(uri, body) {
  const client = new AMQPClient(uri);
  client.logger = null;
  const connection = await client.connect();
  try {
    const channel = await connection.channel();
    await channel.confirmSelect();
    await body(channel, connection);
  } finally {
    if (!connection.closed) await connection.close();
  }
}

const declare = async (channel, name, args = {}) => (await channel.queueDeclare(unique(name), { durable: true }, args)).name;
const publish = (channel, queue, body, properties = {}) => channel.basicPublish('', queue, body, properties);
const ready = async (channel, queue) => (await channel.queueDeclare(queue, { passive: true })).messageCount;

async function bodies(channel, queue) {
  const found = [];
  for (let message; (message = await channel.basicGet(queue, { noAck: true })); ) found.push(message.bodyString());
  return found;
}

/** A consumer whose deliveries are awaited. */
async function consume(channel, queue, options = { noAck: false }) {
  const arrived = [];
  await channel.basicConsume(queue, options, (message) => arrived.push(message));
  const take = async (count) => {
    await soon(() => arrived.length >= count, `${count} deliveries came`);
    return arrived.splice(0, count);
  };
  return { take, next: async () => (await take(1))[0] };
}

async function declare_bind(uri) {
  await onChannel(uri, async (channel) => {
    const queue = await declare(channel, 'declare-bind');
    for (const [kind, bindingKey, routingKey, args] of [
      ['direct', 'red', 'red', {}],
      ['fanout', '', 'anything', {}],
      ['topic', '#.red', 'very.red', {}],
      ['headers', '', '', { 'x-match': 'all', colour: 'red', size: 70000 }],
    ]) {
      const [exchange, source] = [unique(kind), unique(`source-of-${kind}`)];
      await channel.exchangeDeclare(exchange, kind);
      await channel.exchangeDeclare(exchange, kind, { passive: true });
      await channel.exchangeDeclare(source, 'fanout', { autoDelete: true });
      await channel.exchangeBind(exchange, source);
      await channel.queueBind(queue, exchange, bindingKey, args);
      const headers = { colour: 'red', size: 70000 };
      await channel.basicPublish(source, routingKey, kind, { headers });
      const message = await channel.basicGet(queue);
      assert.deepEqual([message.exchange, message.routingKey, message.bodyString()], [source, routingKey, kind]);
      await channel.queueUnbind(queue, exchange, bindingKey, args);
      await channel.basicPublish(source, routingKey, 'lost', { headers });
      assert.equal(await channel.basicGet(queue), null, 'what came after the unbind');
      await channel.exchangeDelete(exchange);
    }
    assert.match((await channel.queueDeclare('', { exclusive: true })).name, /^amq\.gen-/);
    await channel.queueDelete(queue);
  });
}

async function publish_confirms(uri) {
  await onChannel(uri, async (channel) => {
    const queue = await declare(channel, 'publish-confirms');
    // All in flight at once.
    await Promise.all(range(1000).map((number) => publish(channel, queue, String(number), { deliveryMode: 2 })));
    assert.equal(await ready(channel, queue), 1000);
    assert.deepEqual((await bodies(channel, queue)).map(Number), range(1000), 'order');
    await channel.queueDelete(queue);
  });
}

async function consume_prefetch(uri) {
  await onChannel(uri, async (channel) => {
    const queue = await declare(channel, 'consume-prefetch');
    for (const number of range(20)) await publish(channel, queue, String(number));
    await channel.prefetch(5);
    const consumer = await consume(channel, queue);
    const taken = await consumer.take(5);
    assert.equal(await ready(channel, queue), 15, 'ready with five unacked');
    await taken[2].ack(true);
    taken.push(...(await consumer.take(3)));
    assert.equal(await ready(channel, queue), 12, 'ready after three acks');
    await taken.at(-1).ack(true);
    taken.push(...(await consumer.take(5)));
    assert.deepEqual(taken.map((message) => Number(message.bodyString())), range(13), 'order');
    await channel.queueDelete(queue);
  });
}

async function nack_requeue(uri) {
  await onChannel(uri, async (channel) => {
    const queue = await declare(channel, 'nack-requeue');
    for (const body of ['a', 'b']) await publish(channel, queue, body);
    await channel.prefetch(1);
    const consumer = await consume(channel, queue);
    const expect = async (body, redelivered) => {
      const message = await consumer.next();
      assert.deepEqual([message.bodyString(), message.redelivered], [body, redelivered]);
      return message;
    };
    await (await expect('a', false)).nack(true);
    await (await expect('a', true)).reject(true);
    await (await expect('a', true)).nack(false);
    await expect('b', false);
    await channel.basicRecover(true);
    await (await expect('b', true)).ack();
    assert.equal(await ready(channel, queue), 0, 'ready at the end');
    await channel.queueDelete(queue);
  });
}

async function mandatory_return(uri) {
  await onChannel(uri, async (channel) => {
    const returned = [];
    channel.onReturn = (message) => returned.push(message);
    await channel.basicPublish('amq.direct', unique('nowhere'), 'back', { messageId: 'm1' }, true);
    const [{ replyCode, replyText, exchange, routingKey, properties }] = returned; // before the confirm
    assert.deepEqual([replyCode, replyText, exchange, routingKey], [312, 'NO_ROUTE', 'amq.direct', unique('nowhere')]);
    assert.equal(properties.messageId, 'm1');
  });
}

async function large_body(uri) {
  await onChannel(uri, async (channel) => {
    const queue = await declare(channel, 'large-body');
    const body = randomBytes(10 * 1024 * 1024);
    await publish(channel, queue, body, { deliveryMode: 2 });
    assert.equal(sha256((await channel.basicGet(queue)).body), sha256(body), 'SHA-256 of 10 MiB');
    await channel.queueDelete(queue);
  });
}

async function empty_body(uri) {
  await onChannel(uri, async (channel) => {
    const queue = await declare(channel, 'empty-body');
    await publish(channel, queue, '', { messageId: 'empty' });
    await publish(channel, queue, 'next');
    const [empty, next] = await (await consume(channel, queue, { noAck: true })).take(2);
    assert.deepEqual([empty.bodySize, empty.properties.messageId, next.bodyString()], [0, 'empty', 'next']);
    await channel.queueDelete(queue);
  });
}

async function header_types(uri) {
  const headers = {
    boolean: true, integer: -70000, long: 2 ** 50, double: 0.5, string: 'grün 🐇', 'empty string': '',
    timestamp: new Date(2 ** 31 * 1000), void: null, array: [1, 'two', null, false, { five: 5 }], 'empty array': [],
    table: { deep: { deeper: { deepest: [0.25] } } }, 'empty table': {},
  };
  await onChannel(uri, async (channel) => {
    const queue = await declare(channel, 'header-types');
    await publish(channel, queue, '', { headers });
    assert.deepEqual((await channel.basicGet(queue)).properties.headers, headers);
    await channel.queueDelete(queue);
  });
}

async function channel_error(uri) {
  await onChannel(uri, async (channel, connection) => {
    const queue = await declare(channel, 'channel-error');
    const absent = unique('absent');
    for (const [words, step] of [
      [`NOT_FOUND - no queue '${absent}' in vhost '/' (404)`, (other) => other.queueDeclare(absent, { passive: true })],
      [`NOT_FOUND - no exchange '${absent}' in vhost '/' (404)`, (other) =>
        other.confirmSelect().then(() => other.basicPublish(absent, '', ''))],
      [`PRECONDITION_FAILED - inequivalent arg 'durable' for queue '${queue}'`, (other) =>
        other.queueDeclare(queue, { durable: false })],
    ]) {
      const other = await connection.channel();
      await assert.rejects(step(other), (error) => error.message.includes(words) || assert.fail(error.message));
    }
    assert.equal(await ready(channel, queue), 0, 'the first channel still works');
    await channel.queueDelete(queue);
  });
}

async function reconnect(uri) {
  const session = await AMQPSession.connect(uri, { reconnectInterval: 50, logger: null });
  try {
    const queue = await session.queue(unique('reconnect'), { durable: true });
    const arrived = [];
    let answer = () => {};
    // A message is acknowledged when its callback has ended.
    const handled = new Promise((resolve) => { answer = resolve; });
    await queue.subscribe({ noAck: false }, (message) => {
      arrived.push(message);
      return message.redelivered ? undefined : handled;
    });
    await queue.publish('kept', { deliveryMode: 2 });
    await soon(() => arrived.length === 1, 'the first delivery came');
    const again = new Promise((resolve) => { session.onconnect = resolve; });
    arrived[0].channel.connection.socket.destroy(new Error('cut')); // without a word to the broker
    await again;
    await soon(() => arrived.length === 2, 'the recovered consumer got it again');
    assert.deepEqual([arrived[1].bodyString(), arrived[1].redelivered], ['kept', true]);
    answer();
    await queue.delete();
  } finally {
    await session.stop();
  }
}

async function transactions(uri) {
  await onChannel(uri, async (watcher, connection) => {
    const channel = await connection.channel();
    const queue = await declare(channel, 'tx');
    await publish(watcher, queue, 'old');
    await channel.txSelect();
    const old = await channel.basicGet(queue, { noAck: false });
    await publish(channel, queue, 'rolled back');
    await old.ack();
    await channel.txRollback();
    assert.equal(await ready(watcher, queue), 0, 'ready after the rollback');
    await publish(channel, queue, 'new');
    await channel.basicAck(old.deliveryTag);
    assert.equal(await ready(watcher, queue), 0, 'ready before the commit');
    await channel.txCommit();
    assert.deepEqual(await bodies(watcher, queue), ['new'], 'after the commit');
    await channel.queueDelete(queue);
  });
}

async function direct_reply_to(uri) {
  const session = await AMQPSession.connect(uri, { logger: null });
  try {
    const { name } = await session.queue(unique('rpc'), { durable: true });
    const server = await session.rpcServer(name, (question) => `${question.bodyString()}=4`);
    const answer = await session.rpcCall(name, '2+2', { timeout: 20_000 });
    assert.equal(answer.bodyString(), '2+2=4');
    await server.close();
    await (await session.queue(name, { passive: true })).delete();
  } finally {
    await session.stop();
  }
}

async function settle(uri) {
  await onChannel(uri, async (channel) => {
    const [queue, target] = [await declare(channel, 'settled'), await declare(channel, 'settled-target')];
    for (const body of ['retried', 'answered']) await publish(channel, queue, body);
    const consumer = await consume(channel, queue);
    const [retried, answered] = await consumer.take(2);
    const order = (message, headers) => channel.basicPublish('amq.settle', '', '42', {
      headers: { 'x-delivery-tag': message.deliveryTag, ...headers }, deliveryMode: 2,
    });
    await order(retried, { 'x-op': 'retry', 'x-delay': 100 });
    await order(answered, { 'x-op': 'ack-and-publish', 'x-exchange': '', 'x-routing-key': target });
    assert.deepEqual(await bodies(channel, target), ['42'], 'published with the ack');
    const again = await consumer.next();
    assert.deepEqual([again.bodyString(), again.properties.headers['x-delivery-count']], ['retried', 1]);
    await again.ack();
    for (const name of [queue, target]) await channel.queueDelete(name);
  });
}

module.exports = {
  declare_bind, publish_confirms, consume_prefetch, nack_requeue, mandatory_return, large_body, empty_body, header_types,
  channel_error, reconnect, transactions, direct_reply_to, settle,
};

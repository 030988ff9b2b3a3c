// The scenarios with amqplib's promise API. Exported under the names that run.py knows.
'use strict';

const amqplib = require('amqplib');
const assert = require('node:assert/strict');
const { createHash, randomBytes } = require('node:crypto');
const { once } = require('node:events');
const { unique, connected, declare, ready, get, consume, range } = require('./common.js');

const sha256 = (octets) => createHash('sha256').update(octets).digest('hex');

async function declare_bind(uri) {
  await connected(uri, async (connection) => {
    const channel = await connection.createChannel();
    const queue = await declare(channel, 'declare-bind');
    for (const [kind, bindingKey, routingKey, args] of [
      ['direct', 'red', 'red', {}],
      ['fanout', '', 'anything', {}],
      ['topic', '*.red.*', 'very.red.indeed', {}],
      ['headers', '', '', { 'x-match': 'any', colour: 'red', size: 70000 }],
    ]) {
      const { exchange } = await channel.assertExchange(unique(kind), kind, { durable: true });
      await channel.checkExchange(exchange);
      await channel.assertExchange(unique('target'), 'fanout', { durable: true });
      await channel.bindExchange(unique('target'), exchange, bindingKey, args);
      await channel.bindQueue(queue, unique('target'), '');
      channel.publish(exchange, routingKey, Buffer.from(kind), { headers: { size: 70000 } });
      const message = await get(channel, queue);
      assert.deepEqual([message.fields.exchange, message.fields.routingKey], [exchange, routingKey]);
      assert.equal(message.content.toString(), kind);
      await channel.unbindExchange(unique('target'), exchange, bindingKey, args);
      channel.publish(exchange, routingKey, Buffer.from('lost'));
      assert.equal(await channel.get(queue), false, 'routed after unbind');
      await channel.deleteExchange(unique('target'));
      await channel.deleteExchange(exchange);
    }
    const serverNamed = await channel.assertQueue('', { exclusive: true });
    assert.match(serverNamed.queue, /^amq\.gen-/);
    await channel.deleteQueue(queue);
  });
}

async function publish_confirms(uri) {
  await connected(uri, async (connection) => {
    const channel = await connection.createConfirmChannel();
    const queue = await declare(channel, 'publish-confirms');
    for (const number of range(1000)) {
      channel.sendToQueue(queue, Buffer.from(String(number)), { persistent: true });
    }
    await channel.waitForConfirms(); // rejects if one is nacked
    assert.equal(await ready(channel, queue), 1000);
    for (const number of range(1000)) {
      assert.equal((await get(channel, queue)).content.toString(), String(number));
    }
    await channel.deleteQueue(queue);
  });
}

async function consume_prefetch(uri) {
  await connected(uri, async (connection) => {
    const channel = await connection.createConfirmChannel();
    const queue = await declare(channel, 'consume-prefetch');
    for (const number of range(20)) channel.sendToQueue(queue, Buffer.from(String(number)));
    await channel.waitForConfirms();
    await channel.prefetch(5);
    const consumer = await consume(channel, queue);
    const taken = await consumer.take(5);
    assert.equal(await ready(channel, queue), 15, 'ready with five unacked');
    channel.ack(taken[2], true);
    taken.push(...(await consumer.take(3)));
    assert.equal(await ready(channel, queue), 12, 'ready after three acks');
    channel.ackAll();
    taken.push(...(await consumer.take(5)));
    channel.ack(taken.at(-1), true);
    taken.push(...(await consumer.take(5)));
    assert.deepEqual(taken.map((message) => Number(message.content)), range(18), 'order');
    await channel.deleteQueue(queue);
    assert.equal(await consumer.next(), null, 'the cancel that comes when a queue goes');
  });
}

async function nack_requeue(uri) {
  await connected(uri, async (connection) => {
    const channel = await connection.createChannel();
    const queue = await declare(channel, 'nack-requeue');
    for (const body of ['a', 'b', 'c']) channel.sendToQueue(queue, Buffer.from(body));
    await channel.prefetch(1);
    const consumer = await consume(channel, queue);
    const expect = async (body, redelivered) => {
      const message = await consumer.next();
      assert.deepEqual([message.content.toString(), message.fields.redelivered], [body, redelivered]);
      return message;
    };
    channel.nack(await expect('a', false));
    channel.reject(await expect('a', true), true);
    channel.reject(await expect('a', true), false);
    await expect('b', false);
    channel.nackAll(false);
    await expect('c', false);
    await channel.recover();
    channel.ack(await expect('c', true));
    assert.equal(await ready(channel, queue), 0, 'ready at the end');
    await channel.deleteQueue(queue);
  });
}

async function mandatory_return(uri) {
  await connected(uri, async (connection) => {
    const channel = await connection.createConfirmChannel();
    const events = [];
    channel.on('return', (message) => events.push(message));
    channel.publish('amq.direct', unique('nowhere'), Buffer.from('back'), { mandatory: true, messageId: 'm1' }, (error) => {
      events.push(error === null ? 'confirmed' : error);
    });
    await channel.waitForConfirms();
    const [returned, confirmed] = events;
    assert.equal(confirmed, 'confirmed', 'the return comes before the confirm');
    assert.deepEqual(
      [returned.fields.replyCode, returned.fields.replyText, returned.fields.exchange, returned.fields.routingKey],
      [312, 'NO_ROUTE', 'amq.direct', unique('nowhere')],
    );
    assert.deepEqual([returned.properties.messageId, returned.content.toString()], ['m1', 'back']);
  });
}

async function large_body(uri) {
  await connected(uri, async (connection) => {
    const channel = await connection.createConfirmChannel();
    const queue = await declare(channel, 'large-body');
    const body = randomBytes(10 * 1024 * 1024);
    channel.sendToQueue(queue, body, { persistent: true });
    await channel.waitForConfirms();
    assert.equal(sha256((await get(channel, queue)).content), sha256(body), 'SHA-256 of 10 MiB');
    await channel.deleteQueue(queue);
  });
}

async function empty_body(uri) {
  await connected(uri, async (connection) => {
    const channel = await connection.createChannel();
    const queue = await declare(channel, 'empty-body');
    channel.sendToQueue(queue, Buffer.alloc(0), { messageId: 'empty' });
    channel.sendToQueue(queue, Buffer.from('next'));
    const [empty, next] = await (await consume(channel, queue, { noAck: true })).take(2);
    assert.deepEqual([empty.content.length, empty.properties.messageId], [0, 'empty']);
    assert.equal(next.content.toString(), 'next');
    await channel.deleteQueue(queue);
  });
}

async function header_types(uri) {
  const typed = (type, value) => ({ '!': type, value });
  const sent = {
    boolean: true,
    int8: typed('int8', -128),
    uint8: typed('uint8', 255),
    int16: typed('int16', -32768),
    uint16: typed('uint16', 65535),
    int32: typed('int32', -(2 ** 31)),
    uint32: typed('uint32', 2 ** 32 - 1),
    int64: typed('int64', -(2 ** 53)),
    float: typed('float', 0.5),
    double: typed('double', 0.1),
    decimal: typed('decimal', { places: 2, digits: 314 }),
    string: 'grün 🐇',
    'empty string': '',
    bytes: Buffer.from([0, 255, 254]),
    timestamp: typed('timestamp', 2 ** 31),
    void: null,
    array: [1, 'two', null, [false, 0.25], { five: 5 }],
    'empty array': [],
    table: { deep: { deeper: { deepest: [70000] } } },
    'empty table': {},
  };
  // Numbers come back as plain numbers; what JavaScript has no type for keeps its description.
  const plain = (value) => (value?.['!'] && !['decimal', 'timestamp'].includes(value['!']) ? value.value : value);
  const expected = Object.fromEntries(Object.entries(sent).map(([key, value]) => [key, plain(value)]));
  await connected(uri, async (connection) => {
    const channel = await connection.createChannel();
    const queue = await declare(channel, 'header-types');
    channel.sendToQueue(queue, Buffer.alloc(0), { headers: sent });
    assert.deepEqual((await get(channel, queue)).properties.headers, expected);
    await channel.deleteQueue(queue);
  });
}

async function properties(uri) {
  const sent = {
    contentType: 'text/plain',
    contentEncoding: 'utf-8',
    headers: { k: 'v' },
    deliveryMode: 2,
    priority: 9,
    correlationId: 'correlation',
    replyTo: 'answers',
    expiration: '60000',
    messageId: 'message',
    timestamp: 1_700_000_000,
    type: 'kind',
    userId: 'guest',
    appId: 'application',
  };
  await connected(uri, async (connection) => {
    const channel = await connection.createChannel();
    const queue = await declare(channel, 'properties');
    channel.sendToQueue(queue, Buffer.from('all'), sent);
    const received = (await get(channel, queue)).properties;
    assert.deepEqual({ ...received }, { ...sent, clusterId: undefined });
    await channel.deleteQueue(queue);
  });
}

async function channel_error(uri) {
  await connected(uri, async (connection) => {
    const channel = await connection.createChannel();
    const queue = await declare(channel, 'channel-error');
    const absent = unique('absent');
    for (const [code, words, fail] of [
      [404, `NOT_FOUND - no queue '${absent}' in vhost '/'`, (other) => other.checkQueue(absent)],
      [404, `NOT_FOUND - no exchange '${absent}' in vhost '/'`, (other) => other.publish(absent, '', Buffer.alloc(0))],
      [406, `inequivalent arg 'durable' for queue '${queue}'`, (other) => other.assertQueue(queue, { durable: false })],
      [406, 'PRECONDITION_FAILED - unknown delivery tag 99', (other) => other.ack({ fields: { deliveryTag: 99 } })],
    ]) {
      const other = await connection.createChannel();
      const closed = once(other, 'error');
      // Some of these also fail by themselves; the event tells the code.
      Promise.resolve(fail(other)).catch(() => {});
      const [error] = await closed;
      assert.equal(error.code, code, words);
      assert.ok(error.message.includes(words), error.message);
    }
    assert.equal(await ready(channel, queue), 0, 'the first channel still works');
    await channel.deleteQueue(queue);
  });
}

async function reconnect(uri) {
  let queue;
  await connected(uri, async (connection) => {
    const channel = await connection.createConfirmChannel();
    queue = await declare(channel, 'reconnect');
    await channel.assertQueue(unique('exclusive'), { exclusive: true });
    channel.sendToQueue(queue, Buffer.from('kept'), { persistent: true });
    await channel.waitForConfirms();
    assert.equal((await channel.get(queue)).fields.redelivered, false, 'first delivery');
  });
  // Closed by us, with the message unacked.
  await connected(uri, async (connection) => {
    const channel = await connection.createChannel();
    await channel.assertQueue(unique('exclusive'), { exclusive: true }); // free again: it went with its connection
    const message = await (await consume(channel, queue)).next();
    assert.equal(message.fields.redelivered, true, 'delivery after an orderly close');
    const lost = once(connection, 'error');
    connection.connection.stream.destroy(new Error('cut')); // without a word to the broker
    await lost;
  });
  await connected(uri, async (connection) => {
    const channel = await connection.createChannel();
    const message = await (await consume(channel, queue)).next();
    assert.deepEqual([message.content.toString(), message.fields.redelivered], ['kept', true]);
    channel.ack(message);
    assert.equal(await ready(channel, queue), 0, 'ready at the end');
    await channel.deleteQueue(queue);
  });
}

module.exports = {
  declare_bind,
  publish_confirms,
  consume_prefetch,
  nack_requeue,
  mandatory_return,
  large_body,
  empty_body,
  header_types,
  properties,
  channel_error,
  reconnect,
};

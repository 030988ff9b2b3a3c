// Time in queues, and quorum queues, with amqplib.
'use strict';

const assert = require('node:assert/strict');
const {
  unique, onChannel, declare, declared, publish, get, ready, range, bodies, consume, soon, refusal,
} = require('./common.js');

async function expiry(uri) {
  await onChannel(uri, async (channel, connection) => {
    const queue = await declared(channel, 'ttl', { 'x-message-ttl': 60_000 });
    await publish(channel, queue, 'short', { expiration: '50' });
    await publish(channel, queue, 'long', { expiration: '70000' });
    await publish(channel, queue, 'of the queue');
    await soon(async () => (await ready(channel, queue)) === 2, 'the short one expired');
    assert.deepEqual(await bodies(channel, queue), ['long', 'of the queue']);
    const error = await refusal(connection, (other) => other.sendToQueue(queue, Buffer.from(''), { expiration: 'soon' }));
    assert.equal(error.code, 406, error.message);
    await channel.deleteQueue(queue);
    const { queue: idle } = await channel.assertQueue(unique('idle'), { expires: 100 });
    await new Promise((wake) => setTimeout(wake, 300)); // asking counts as use, so wait before
    assert.equal((await refusal(connection, (other) => other.checkQueue(idle))).code, 404, 'an idle queue goes');
  });
}

async function quorum_queue(uri) {
  await onChannel(uri, async (channel, connection) => {
    const dead = await declare(channel, 'quorum-dead');
    const quorum = { 'x-queue-type': 'quorum' };
    const queue = await declared(channel, 'quorum', {
      ...quorum, 'x-delivery-limit': 2, 'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': dead,
    });
    await publish(channel, queue, 'poison', { persistent: true });
    const consumer = await consume(channel, queue);
    const counts = [];
    for (const _ of range(3)) {
      const message = await consumer.next();
      counts.push(message.properties.headers['x-delivery-count']);
      channel.reject(message, true);
    }
    assert.deepEqual(counts, [undefined, 1, 2], 'x-delivery-count');
    await soon(async () => (await ready(channel, dead)) === 1, 'the poison message is dead-lettered');
    const [death] = (await get(channel, dead)).properties.headers['x-death'];
    assert.deepEqual([death.reason, death.queue], ['delivery_limit', queue]);
    for (const options of [{ durable: false }, { exclusive: true }]) {
      const error = await refusal(connection, (other) => other.assertQueue(unique('not-quorum'), { ...options, arguments: quorum }));
      assert.equal(error.code, 406, error.message);
    }
    for (const name of [queue, dead]) await channel.deleteQueue(name);
  });
}

async function delays(uri) {
  await onChannel(uri, async (channel) => {
    const queue = await declare(channel, 'delayed');
    const { exchange } = await channel.assertExchange(unique('delayed-exchange'), 'x-delayed-message', {
      arguments: { 'x-delayed-type': 'topic' },
    });
    await channel.bindQueue(queue, exchange, '#');
    const time = { '!': 'timestamp', value: Math.floor(Date.now() / 1000) + 2 };
    channel.sendToQueue(queue, Buffer.from('fourth'), { headers: { 'x-opt-delivery-time': time }, persistent: true });
    channel.publish(exchange, 'key', Buffer.from('third'), { headers: { 'x-delay': 600 }, persistent: true });
    channel.sendToQueue(queue, Buffer.from('second'), { headers: { 'x-opt-delivery-delay': 300 }, persistent: true });
    await publish(channel, queue, 'first');
    assert.equal(await ready(channel, queue), 1, 'the one without a delay is there');
    await soon(async () => (await ready(channel, queue)) === 4, 'all came');
    assert.deepEqual(await bodies(channel, queue), ['first', 'second', 'third', 'fourth']);
    await channel.deleteExchange(exchange);
    await channel.deleteQueue(queue);
  });
}

async function delayed_retry(uri) {
  await onChannel(uri, async (channel) => {
    const queue = await declared(channel, 'retried', { 'x-delayed-retry-type': 'all', 'x-delayed-retry-min': 200 });
    for (const body of ['again', 'behind']) await publish(channel, queue, body, { persistent: true });
    const consumer = await consume(channel, queue);
    const [failed, behind] = await consumer.take(2);
    channel.nack(failed);
    channel.ack(behind);
    const again = await consumer.next();
    assert.deepEqual([again.content.toString(), again.fields.redelivered], ['again', true]);
    await channel.deleteQueue(queue);
  });
}

async function retry_until_dead(uri) {
  await onChannel(uri, async (channel) => {
    const dead = await declare(channel, 'given-up');
    const queue = await declared(channel, 'scheduled', {
      'x-delayed-retry-type': 'failed',
      'x-delayed-retry-schedule': [50, 150],
      'x-delivery-limit': 3,
      'x-dead-letter-exchange': '',
      'x-dead-letter-routing-key': dead,
    });
    await publish(channel, queue, 'poison', { persistent: true });
    const consumer = await consume(channel, queue);
    const attempts = [];
    for (const _ of range(4)) {
      const message = await consumer.next();
      attempts.push([performance.now(), message.properties.headers['x-delivery-count']]);
      channel.reject(message, true);
    }
    await soon(async () => (await ready(channel, dead)) === 1, 'given up');
    assert.deepEqual(attempts.map(([, count]) => count), [undefined, 1, 2, 3]);
    const waits = attempts.slice(1).map(([time], number) => time - attempts[number][0]);
    assert.ok([50, 150, 150].every((least, number) => waits[number] >= least - 1), `waited ${waits}`);
    const [death] = (await get(channel, dead)).properties.headers['x-death'];
    assert.deepEqual([death.reason, death.queue], ['delivery_limit', queue]);
    for (const name of [queue, dead]) await channel.deleteQueue(name);
  });
}

async function consumer_timeout(uri) {
  await onChannel(uri, async (channel, connection) => {
    const strict = await declared(channel, 'strict', { 'x-consumer-timeout': 200 });
    await publish(channel, strict, 'held', { persistent: true });
    const error = await refusal(connection, (other) => other.consume(strict, () => {}));
    assert.equal(error.code, 406);
    assert.match(error.message, /timed out. Timeout value used: 200 ms/);
    assert.deepEqual(await bodies(channel, strict), ['held'], 'it went back');
    // A visibility timeout: only the message goes back, and the consumer goes on.
    const lenient = await declare(channel, 'lenient');
    await publish(channel, lenient, 'seen twice', { persistent: true });
    const consumer = await consume(channel, lenient, {
      arguments: { 'x-consumer-timeout': 200, 'x-consumer-timeout-action': 'requeue' },
    });
    const [first, second] = await consumer.take(2);
    assert.deepEqual([first.fields.redelivered, second.fields.redelivered], [false, true]);
    channel.ack(first); // too late, and forgiven
    channel.ack(second);
    assert.equal(await ready(channel, lenient), 0);
    for (const queue of [strict, lenient]) await channel.deleteQueue(queue);
  });
}

async function at_least_once(uri) {
  await onChannel(uri, async (channel) => {
    const dead = await declare(channel, 'safe-dead');
    const { exchange } = await channel.assertExchange(unique('safe-dead-exchange'), 'fanout');
    const queue = await declared(channel, 'safe', {
      'x-queue-type': 'quorum',
      'x-overflow': 'reject-publish',
      'x-dead-letter-strategy': 'at-least-once',
      'x-dead-letter-exchange': exchange,
    });
    await publish(channel, queue, 'kept', { persistent: true });
    const consumer = await consume(channel, queue);
    channel.reject(await consumer.next(), false);
    // The exchange leads nowhere, so the queue keeps the message until it does.
    await channel.bindQueue(dead, exchange, '');
    await soon(async () => (await ready(channel, dead)) === 1, 'the dead letter arrives once there is a way');
    const { content, properties } = await get(channel, dead);
    const [death] = properties.headers['x-death'];
    assert.deepEqual([content.toString(), death.reason, death.queue], ['kept', 'rejected', queue]);
    for (const name of [queue, dead]) await channel.deleteQueue(name);
    await channel.deleteExchange(exchange);
  });
}

async function settle(uri) {
  await onChannel(uri, async (channel, connection) => {
    const [target, refused] = [await declare(channel, 'settled-target'), await declare(channel, 'settled-refused')];
    const queue = await declared(channel, 'settled', {
      'x-consumer-timeout': 1500, 'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': refused,
    });
    for (const body of ['retried', 'answered', 'rejected', 'extended']) await publish(channel, queue, body, { persistent: true });
    const consumer = await consume(channel, queue);
    const order = (message, headers) => channel.publish('amq.settle', '', Buffer.from('42'), {
      headers: { 'x-delivery-tag': message.fields.deliveryTag, ...headers }, persistent: true,
    });
    const [retried, answered, rejected, extended] = await consumer.take(4);
    order(retried, { 'x-op': 'retry', 'x-delay': 100 });
    order(answered, { 'x-op': 'ack-and-publish', 'x-exchange': '', 'x-routing-key': target });
    order(rejected, { 'x-op': 'reject', 'x-reason': 'no such customer', 'x-annotations': { customer: 7 } });
    order(extended, { 'x-op': 'extend', 'x-timeout': 60_000 });
    await channel.waitForConfirms();
    assert.deepEqual(await bodies(channel, target), ['42'], 'published with the ack');
    await soon(async () => (await ready(channel, refused)) === 1, 'the rejected one is dead-lettered');
    const { properties: { headers } } = await get(channel, refused);
    assert.deepEqual([headers['x-reason'], headers.customer], ['no such customer', 7]);
    const again = await consumer.next();
    assert.deepEqual([again.content.toString(), again.properties.headers['x-delivery-count']], ['retried', 1]);
    channel.ack(again);
    // Longer than the queue allows: without the extension the channel would be closed.
    await new Promise((wake) => setTimeout(wake, 2000));
    channel.ack(extended);
    assert.equal(await ready(channel, queue), 0, 'left');
    const error = await refusal(connection, (other) =>
      other.publish('amq.settle', '', Buffer.from(''), { headers: { 'x-delivery-tag': 99, 'x-op': 'retry' } }));
    assert.equal(error.code, 406, error.message);
    for (const name of [queue, target, refused]) await channel.deleteQueue(name);
  });
}

module.exports = {
  expiry,
  quorum_queue,
  at_least_once,
  delays,
  delayed_retry,
  retry_until_dead,
  consumer_timeout,
  settle,
};

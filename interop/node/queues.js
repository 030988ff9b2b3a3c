// What queues and channels can be asked to do, with amqplib, which has no transactions.
'use strict';

const assert = require('node:assert/strict');
const {
  connected, onChannel, declare, declared, publish, ready, range, bodies, consume, soon, refusal,
} = require('./common.js');

async function length_limits(uri) {
  await onChannel(uri, async (channel) => {
    const dead = await declare(channel, 'limit-dead');
    for (const [overflow, kept, nacked, deadLetters] of [
      ['drop-head', ['1', '2'], false, ['0']],
      ['reject-publish', ['0', '1'], true, []],
      ['reject-publish-dlx', ['0', '1'], true, ['2']],
    ]) {
      for (const limit of ['x-max-length', 'x-max-length-bytes']) {
        const queue = await declared(channel, `${limit}-${overflow}`, {
          'x-overflow': overflow,
          [limit]: 2,
          'x-dead-letter-exchange': '',
          'x-dead-letter-routing-key': dead,
        });
        let refused = false;
        for (const body of ['0', '1', '2']) {
          await publish(channel, queue, body, { persistent: true }).catch(() => { refused = true; });
        }
        assert.equal(refused, nacked, `${overflow}: a nack`);
        assert.deepEqual(await bodies(channel, queue), kept, `${overflow}: what is kept`);
        await soon(async () => (await ready(channel, dead)) >= deadLetters.length, 'dead letters arrived');
        assert.deepEqual(await bodies(channel, dead), deadLetters, `${overflow}: dead letters`);
        await channel.deleteQueue(queue);
      }
    }
    await channel.deleteQueue(dead);
  });
}

async function dead_letters(uri) {
  await onChannel(uri, async (channel) => {
    const dead = await declare(channel, 'dead');
    const dlx = { 'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': dead };
    const consumer = await consume(channel, dead);
    for (const [reason, args] of [['rejected', {}], ['expired', { 'x-message-ttl': 1 }], ['maxlen', { 'x-max-length': 1 }]]) {
      const queue = await declared(channel, `dead-${reason}`, { ...dlx, ...args });
      await publish(channel, queue, 'first', { headers: { own: 1 } });
      if (reason === 'rejected') channel.reject(await channel.get(queue), false);
      if (reason === 'maxlen') await publish(channel, queue, 'second');
      const message = await consumer.next();
      channel.ack(message);
      const { headers } = message.properties;
      const [{ time, ...death }] = headers['x-death'];
      assert.deepEqual(death, { count: 1, reason, queue, exchange: '', 'routing-keys': [queue] });
      assert.equal(time['!'], 'timestamp');
      assert.deepEqual([headers['x-first-death-reason'], headers['x-first-death-queue'], headers.own], [reason, queue, 1]);
      await channel.deleteQueue(queue);
    }
    await channel.deleteQueue(dead);
  });
}

async function priorities(uri) {
  await onChannel(uri, async (channel) => {
    const queue = await declared(channel, 'priorities', { 'x-max-priority': 5 });
    for (const [body, priority] of [['none', undefined], ['one', 1], ['five', 5], ['nine', 9], ['one again', 1]]) {
      await publish(channel, queue, body, { priority });
    }
    assert.deepEqual(await bodies(channel, queue), ['five', 'nine', 'one', 'one again', 'none']);
    await channel.deleteQueue(queue);
  });
}

/** A consumer that notes its name and acknowledges. */
const noting = async (channel, queue, name, log, options) =>
  (await channel.consume(queue, (message) => {
    if (message === null) return;
    log.push(`${name} ${message.content}`);
    channel.ack(message);
  }, options)).consumerTag;

async function who_receives(uri, args, first, second, name) {
  await onChannel(uri, async (channel) => {
    const queue = await declared(channel, name, args);
    const log = [];
    const tags = [];
    for (const [it, options] of [first, second]) tags.push([it, await noting(channel, queue, it, log, options)]);
    for (const body of ['a', 'b']) await publish(channel, queue, body);
    await soon(() => log.length === 2, 'both came');
    const [preferred] = log[0].split(' ');
    await channel.cancel(tags.find(([it]) => it === preferred)[1]);
    await publish(channel, queue, 'c');
    await soon(() => log.length === 3, 'the third came');
    assert.deepEqual(log, ['first a', 'first b', 'second c']);
    await channel.deleteQueue(queue);
  });
}

const single_active_consumer = (uri) =>
  who_receives(uri, { 'x-single-active-consumer': true }, ['first', {}], ['second', {}], 'single');

const consumer_priorities = (uri) => who_receives(uri, {}, ['second', {}], ['first', { priority: 10 }], 'priority');

async function exclusive_consumer(uri) {
  await onChannel(uri, async (channel, connection) => {
    const queue = await declare(channel, 'exclusive-consumer');
    const tag = await noting(channel, queue, 'only', [], { exclusive: true });
    const error = await refusal(connection, (other) => noting(other, queue, 'second', []));
    assert.equal(error.code, 403);
    assert.match(error.message, /in exclusive use/);
    await channel.cancel(tag);
    await noting(channel, queue, 'now it may', []);
    const mine = (await channel.assertQueue('', { exclusive: true })).queue;
    await connected(uri, async (stranger) => {
      assert.equal((await refusal(stranger, (other) => other.checkQueue(mine))).code, 405);
    });
    await channel.deleteQueue(queue);
  });
}

async function cancel_notify(uri) {
  await onChannel(uri, async (channel) => {
    const queue = await declare(channel, 'cancel-notify');
    const consumer = await consume(channel, queue);
    await connected(uri, async (other) => (await other.createChannel()).deleteQueue(queue));
    assert.equal(await consumer.next(), null, 'amqplib tells a cancel as null');
  });
}

async function direct_reply_to(uri) {
  await onChannel(uri, async (server, connection) => {
    const queue = await declare(server, 'rpc');
    await connected(uri, async (other) => {
      const client = await other.createChannel();
      const answers = await consume(client, 'amq.rabbitmq.reply-to', { noAck: true });
      client.sendToQueue(queue, Buffer.from('2+2'), { replyTo: 'amq.rabbitmq.reply-to', correlationId: '7' });
      const question = await (await consume(server, queue)).next();
      assert.match(question.properties.replyTo, /^amq\.rabbitmq\.reply-to\./);
      server.sendToQueue(question.properties.replyTo, Buffer.from('4'), { correlationId: question.properties.correlationId });
      server.ack(question);
      const answer = await answers.next();
      assert.deepEqual([answer.content.toString(), answer.properties.correlationId], ['4', '7']);
    });
    const error = await refusal(connection, (other) =>
      other.sendToQueue(queue, Buffer.from(''), { replyTo: 'amq.rabbitmq.reply-to' }));
    assert.equal(error.code, 406, error.message);
    await server.deleteQueue(queue);
  });
}

async function global_qos(uri) {
  await onChannel(uri, async (channel) => {
    const queues = [await declare(channel, 'qos-0'), await declare(channel, 'qos-1')];
    for (const queue of queues) for (const _ of range(5)) await publish(channel, queue, '');
    await channel.prefetch(3, true);
    const arrived = [];
    for (const queue of queues) await channel.consume(queue, (message) => arrived.push(message));
    const left = async () => (await ready(channel, queues[0])) + (await ready(channel, queues[1]));
    await soon(() => arrived.length === 3, 'three came');
    assert.equal(await left(), 7, 'one limit for two consumers');
    channel.ack(arrived.at(-1), true);
    await soon(() => arrived.length === 6, 'three more came');
    assert.equal(await left(), 4, 'left after three acks');
    for (const queue of queues) await channel.deleteQueue(queue);
  });
}

async function user_id(uri) {
  await onChannel(uri, async (channel, connection) => {
    const queue = await declare(channel, 'user-id');
    await publish(channel, queue, 'mine', { userId: 'guest' });
    const error = await refusal(connection, (other) => other.sendToQueue(queue, Buffer.from(''), { userId: 'somebody' }));
    assert.equal(error.code, 406);
    assert.match(error.message, /user_id property set to 'somebody' but authenticated user was 'guest'/);
    assert.deepEqual(await bodies(channel, queue), ['mine']);
    await channel.deleteQueue(queue);
  });
}

module.exports = {
  length_limits,
  dead_letters,
  priorities,
  single_active_consumer,
  consumer_priorities,
  exclusive_consumer,
  cancel_notify,
  direct_reply_to,
  global_qos,
  user_id,
};

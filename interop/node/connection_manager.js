// The scenarios with amqp-connection-manager: what it publishes while there is no connection arrives afterwards.
'use strict';

const manager = require('amqp-connection-manager');
const assert = require('node:assert/strict');
const { once } = require('node:events');
const { unique, range, soon } = require('./common.js');

/** Runs the body with a managed connection, and a channel that declares the queue whenever it is opened. */
async function managed(uri, queue, body) {
  const connection = manager.connect([uri], { reconnectTimeInSeconds: 0.1, heartbeatIntervalInSeconds: 5 });
  const channel = connection.createChannel({ setup: (it) => it.assertQueue(queue, { durable: true }) });
  channel.on('error', () => {}); // a channel that was cut off says so here, and is opened again
  try {
    await channel.waitForConnect();
    await body(channel, connection);
    await channel.deleteQueue(queue);
  } finally {
    await channel.close();
    await connection.close();
  }
}

async function publish_confirms(uri) {
  const queue = unique('publish-confirms');
  await managed(uri, queue, async (channel) => {
    const all = range(500).map((number) => channel.sendToQueue(queue, Buffer.from(String(number)), { persistent: true }));
    await Promise.all(all);
    assert.equal((await channel.checkQueue(queue)).messageCount, 500);
  });
}

async function reconnect(uri) {
  const queue = unique('reconnect');
  await managed(uri, queue, async (channel, connection) => {
    const arrived = [];
    await channel.consume(queue, (message) => {
      arrived.push([message.content.toString(), message.fields.redelivered]);
      if (message.content.toString() !== 'kept' || message.fields.redelivered) channel.ack(message);
    });
    await channel.sendToQueue(queue, Buffer.from('kept'), { persistent: true });
    await soon(() => arrived.length === 1, 'the first delivery came');
    const lost = once(connection, 'disconnect');
    connection.connection.connection.stream.destroy(new Error('cut')); // without a word to the broker
    await lost;
    await channel.sendToQueue(queue, Buffer.from('sent while away'), { persistent: true });
    await soon(() => arrived.length === 3, 'what was unacked and what was sent meanwhile came');
    assert.deepEqual(arrived, [['kept', false], ['kept', true], ['sent while away', false]]);
  });
}

module.exports = { publish_confirms, reconnect };

'use strict';

const { setTimeout: after } = require('node:timers/promises');

/** How each thing is that a service needs, within 5 s. */
async function health(checks) {
  const looked = Object.entries(checks).map(async ([name, look]) => [name, await one(look)]);
  const found = Object.fromEntries(await Promise.all(looked));
  const isWell = Object.values(found).every((check) => check.status === 'healthy');
  return { status: isWell ? 'healthy' : 'unhealthy', timestamp: new Date().toISOString(), checks: found };
}

async function one(look) {
  const began = Date.now();
  const timeout = after(5000, undefined, { ref: false }).then(() => Promise.reject(new Error('Timeout')));
  try {
    const details = await Promise.race([look(), timeout]);
    return { status: 'healthy', responseTime: Date.now() - began, details };
  } catch (error) {
    return { status: 'unhealthy', error: error.message };
  } finally {
    timeout.catch(() => {});
  }
}

module.exports = { health };

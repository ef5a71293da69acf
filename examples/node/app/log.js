'use strict';

/** A line of JSON, as winston writes it. */
function log(level, message) {
  console.log(JSON.stringify({ level, message, timestamp: new Date().toISOString() }));
}

module.exports = { log };

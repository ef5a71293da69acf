'use strict';
// What a request has to have.

const { Refusal } = require('./refusal');

const isText = (value, min, max) => typeof value === 'string' && value.length >= min && value.length <= max;

const rules = {
  text: (min, max) => [(value) => isText(value, min, max), `must be a text of ${min} to ${max} characters`],
  email: [(value) => isText(value, 3, 200) && /^[^\s@]+@[^\s@]+\.[^\s@]+$/.test(value), 'must be an address'],
  integer: (min, max) => [(value) => Number.isInteger(value) && value >= min && value <= max, `must be an integer from ${min} to ${max}`],
  one: (...of) => [(value) => of.includes(value), `must be one of ${of.join(', ')}`],
  list: (min, max, each) => [
    (value) => Array.isArray(value) && value.length >= min && value.length <= max && value.every((one) => wrong(one, each) === null),
    `must be a list of ${min} to ${max}, each with ${Object.entries(each).map(([key, [, words]]) => `${key} that ${words}`).join(' and ')}`,
  ],
};

/** What is wrong with it, or null. */
function wrong(body, wanted) {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) return 'The body must be a JSON object';
  const bad = Object.entries(wanted).find(([key, [isGood]]) => !isGood(body[key]));
  return bad ? `${bad[0]} ${bad[1][1]}` : null;
}

/** These members of the request's JSON, if they are as they should be. */
function valid(req, wanted) {
  const why = wrong(req.body, wanted);
  if (why) throw new Refusal(400, why);
  return Object.fromEntries(Object.keys(wanted).map((key) => [key, req.body[key]]));
}

/** Who asks, as the gateway says; services are asked by nobody else. */
function caller(req) {
  const id = Number(req.get('X-User-ID'));
  if (!Number.isInteger(id) || id < 1) throw new Refusal(401, 'Unauthorized');
  const isAdmin = req.get('X-User-Role') === 'admin';
  return { id, isAdmin, may: (user) => isAdmin || user === id };
}

module.exports = { caller, rules, valid };

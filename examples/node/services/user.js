'use strict';
// Users: who they are, and how they show it.

const { randomBytes, scrypt, timingSafeEqual } = require('node:crypto');
const { promisify } = require('node:util');
const jwt = require('jsonwebtoken');
const { Refusal } = require('../app/refusal');
const { handle, serve } = require('../app/service');
const { isTaken } = require('../app/store');
const { caller, rules, valid } = require('../app/valid');

const tables = `create table if not exists users (
  id integer primary key, name text not null, email text not null unique, password text not null, role text not null, createdAt text not null
)`;
const SEEN = 'id, name, email, role, createdAt';

const digest = promisify(scrypt);

async function hashed(password, salt = randomBytes(16).toString('hex')) {
  return `${salt}:${(await digest(password, salt, 32)).toString('hex')}`;
}

async function isPassword(password, kept) {
  const made = await hashed(password, kept.split(':')[0]);
  return made.length === kept.length && timingSafeEqual(Buffer.from(made), Buffer.from(kept));
}

async function routes(app, store, events) {
  const nobody = await hashed(randomBytes(16).toString('hex')); // who is not there takes as long as who is
  const user = (id) => store.one(`select ${SEEN} from users where id = ?`, id) ?? refuse(404, 'User not found');

  async function add({ name, email, password }, role) {
    const password_hash = await hashed(password);
    return store.together(() => {
      const row = [name, email, password_hash, role, new Date().toISOString()];
      const made = user(store.run('insert into users (name, email, password, role, createdAt) values (?, ?, ?, ?, ?)', ...row).lastInsertRowid);
      events.publish('user.registered', { userId: made.id, email, registeredAt: made.createdAt });
      return made;
    });
  }

  app.post('/users/register', handle(async (req, res) => {
    const asked = valid(req, { name: rules.text(1, 100), email: rules.email, password: rules.text(8, 100) });
    res.status(201).json(await add(asked, 'user').catch(taken));
  }));

  app.post('/users/login', handle(async (req, res) => {
    const { email, password } = valid(req, { email: rules.email, password: rules.text(1, 100) });
    const found = store.one('select id, role, password from users where email = ?', email);
    if (!(await isPassword(password, found?.password ?? nobody))) refuse(401, 'Invalid credentials');
    const token = jwt.sign({ id: found.id, role: found.role }, process.env.JWT_SECRET, { expiresIn: '1h' });
    res.json({ token, user: user(found.id) });
  }));

  app.get('/users', handle((req, res) => res.json({ users: store.all(`select ${SEEN} from users order by id limit 50`) })));

  app.get('/users/:id(\\d+)', handle((req, res) => res.json(user(Number(req.params.id)))));

  app.put('/users/:id(\\d+)', handle((req, res) => {
    const id = Number(req.params.id);
    if (!caller(req).may(id)) refuse(403, "Another user's profile");
    const { name, email } = valid(req, { name: rules.text(1, 100), email: rules.email });
    try {
      res.json(store.together(() => {
        store.run('update users set name = ?, email = ? where id = ?', name, email, id);
        const changed = user(id);
        events.publish('user.updated', { userId: id, email });
        return changed;
      }));
    } catch (error) {
      taken(error);
    }
  }));

  app.delete('/users/:id(\\d+)', handle((req, res) => {
    const id = Number(req.params.id);
    if (!caller(req).may(id)) refuse(403, "Another user's profile");
    if (store.run('delete from users where id = ?', id).changes === 0) refuse(404, 'User not found');
    res.status(204).end();
  }));

  const { ADMIN_EMAIL: email, ADMIN_PASSWORD: password } = process.env;
  if (email && password) await add({ name: 'Administrator', email, password }, 'admin').catch((error) => isTaken(error) || Promise.reject(error));
}

function refuse(status, message) {
  throw new Refusal(status, message);
}

function taken(error) {
  throw isTaken(error) ? new Refusal(409, 'Email is taken') : error;
}

serve({ name: 'user-service', port: 3001, tables, routes });

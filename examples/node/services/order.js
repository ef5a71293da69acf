'use strict';
// Orders: each is of a user, and of products that are there.

const { products, users } = require('../app/calls');
const { Refusal } = require('../app/refusal');
const { handle, serve } = require('../app/service');
const { caller, rules, valid } = require('../app/valid');

const tables = `create table if not exists orders (
  id integer primary key, userId integer not null, items text not null, totalAmount integer not null, status text not null, createdAt text not null
);
create index if not exists orders_of_user on orders (userId)`;
const ITEM = { productId: rules.integer(1, 2 ** 31), quantity: rules.integer(1, 10_000) };
const STATUS = rules.one('pending', 'paid', 'shipped', 'delivered', 'cancelled');

const seen = (row) => ({ ...row, items: JSON.parse(row.items) });

function routes(app, store, events) {
  /** An order that the caller may see; others' are not there. */
  const order = (req) => {
    const row = store.one('select * from orders where id = ?', Number(req.params.id));
    if (!row || !caller(req).may(row.userId)) throw new Refusal(404, 'Order not found');
    return seen(row);
  };

  app.post('/orders', handle(async (req, res) => {
    const userId = caller(req).id;
    const { items } = valid(req, { items: rules.list(1, 20, ITEM) });
    if (!(await users.get(`/users/${userId}`))) throw new Refusal(404, 'User not found');
    const found = await Promise.all(items.map((item) => products.get(`/products/${item.productId}`)));
    const bought = items.map(({ productId, quantity }, index) => {
      const product = found[index];
      if (!product) throw new Refusal(404, `Product ${productId} not found`);
      if (product.stock < quantity) throw new Refusal(400, `Insufficient stock for product ${product.name}`);
      return { productId, productName: product.name, price: product.price, quantity };
    });
    const totalAmount = bought.reduce((total, { price, quantity }) => total + price * quantity, 0);
    const made = store.together(() => {
      const row = [userId, JSON.stringify(bought), totalAmount, 'pending', new Date().toISOString()];
      const { lastInsertRowid } = store.run('insert into orders (userId, items, totalAmount, status, createdAt) values (?, ?, ?, ?, ?)', ...row);
      const { id, createdAt } = store.one('select id, createdAt from orders where id = ?', lastInsertRowid);
      events.publish('order.created', { orderId: id, userId, items: bought, totalAmount, createdAt });
      return { id, userId, items: bought, totalAmount, status: 'pending', createdAt };
    });
    res.status(201).json(made);
  }));

  app.get('/orders/:id(\\d+)', handle((req, res) => res.json(order(req))));

  app.get('/orders/user/:userId(\\d+)', handle((req, res) => {
    const userId = Number(req.params.userId);
    if (!caller(req).may(userId)) throw new Refusal(403, "Another user's orders");
    res.json({ orders: store.all('select * from orders where userId = ? order by id desc limit 100', userId).map(seen) });
  }));

  app.put('/orders/:id(\\d+)/status', handle((req, res) => {
    const { status } = valid(req, { status: STATUS });
    res.json(store.together(() => {
      const before = order(req);
      if (!caller(req).isAdmin && !(before.status === 'pending' && status === 'cancelled')) throw new Refusal(403, 'An order can only be cancelled');
      return change(store, events, before, status);
    }));
  }));
}

function change(store, events, order, status) {
  store.run('update orders set status = ? where id = ?', status, order.id);
  events.publish('order.updated', { orderId: order.id, userId: order.userId, status });
  return { ...order, status };
}

const handlers = (store, events) => ({
  'payment.completed': ({ orderId }) => {
    const row = store.one("select * from orders where id = ? and status = 'pending'", orderId);
    if (row) change(store, events, row, 'paid');
  },
});

serve({ name: 'order-service', port: 3003, tables, routes, handlers });

'use strict';
// Payments of orders, and refunds. What a bank would say stands in the card's token: `tok_declined` is refused.

const { orders } = require('../app/calls');
const { Refusal } = require('../app/refusal');
const { handle, serve } = require('../app/service');
const { isTaken } = require('../app/store');
const { caller, rules, valid } = require('../app/valid');

const tables = `create table if not exists payments (
  id integer primary key, orderId integer not null, userId integer not null, amount integer not null, status text not null, completedAt text not null
);
create unique index if not exists paid_once on payments (orderId) where status = 'completed'`;

function routes(app, store, events) {
  const payment = (req) => {
    const row = store.one('select * from payments where id = ?', Number(req.params.id));
    if (!row || !caller(req).may(row.userId)) throw new Refusal(404, 'Payment not found');
    return row;
  };

  app.post('/payments', handle(async (req, res) => {
    const userId = caller(req).id;
    const { orderId, token } = valid(req, { orderId: rules.integer(1, 2 ** 31), token: rules.text(1, 100) });
    const order = await orders.get(`/orders/${orderId}`);
    if (!order) throw new Refusal(404, 'Order not found');
    if (order.status !== 'pending') throw new Refusal(409, `The order is ${order.status}`);
    const status = token === 'tok_declined' ? 'failed' : 'completed';
    const made = store.together(() => {
      const row = [orderId, userId, order.totalAmount, status, new Date().toISOString()];
      try {
        const { lastInsertRowid } = store.run('insert into payments (orderId, userId, amount, status, completedAt) values (?, ?, ?, ?, ?)', ...row);
        const { id, amount, completedAt } = store.one('select * from payments where id = ?', lastInsertRowid);
        events.publish(`payment.${status}`, { paymentId: id, orderId, amount, completedAt });
        return { id, orderId, userId, amount, status, completedAt };
      } catch (error) {
        throw isTaken(error) ? new Refusal(409, 'The order is paid') : error;
      }
    });
    if (status === 'failed') throw new Refusal(402, 'Payment declined');
    res.status(201).json(made);
  }));

  app.get('/payments/:id(\\d+)', handle((req, res) => res.json(payment(req))));

  app.post('/payments/:id(\\d+)/refund', handle((req, res) => {
    res.json(store.together(() => {
      const { id, status } = payment(req);
      if (status !== 'completed') throw new Refusal(409, `The payment is ${status}`);
      store.run("update payments set status = 'refunded' where id = ?", id);
      return payment(req);
    }));
  }));
}

serve({ name: 'payment-service', port: 3004, tables, routes });

'use strict';
// Products, and how many there are of each. The gateway says who may change them.

const { Refusal } = require('../app/refusal');
const { handle, serve } = require('../app/service');
const { rules, valid } = require('../app/valid');

const tables = `create table if not exists products (
  id integer primary key, name text not null, description text not null, price integer not null, stock integer not null, createdAt text not null
)`;
const PRODUCT = { name: rules.text(1, 200), description: rules.text(0, 2000), price: rules.integer(1, 1e9), stock: rules.integer(0, 1e9) };

function routes(app, store, events) {
  const product = (id) => {
    const found = store.one('select * from products where id = ?', id);
    if (!found) throw new Refusal(404, 'Product not found');
    return found;
  };

  app.get('/products', handle((req, res) => {
    const words = typeof req.query.q === 'string' ? req.query.q : '';
    res.json({ products: store.all('select * from products where instr(lower(name), lower(?)) > 0 order by id desc limit 50', words) });
  }));

  app.get('/products/:id(\\d+)', handle((req, res) => res.json(product(Number(req.params.id)))));

  app.post('/products', handle((req, res) => {
    const { name, description, price, stock } = valid(req, PRODUCT);
    const row = [name, description, price, stock, new Date().toISOString()];
    const { lastInsertRowid } = store.run('insert into products (name, description, price, stock, createdAt) values (?, ?, ?, ?, ?)', ...row);
    res.status(201).json(product(lastInsertRowid));
  }));

  app.put('/products/:id(\\d+)', handle((req, res) => {
    const id = Number(req.params.id);
    const { name, description, price, stock } = valid(req, PRODUCT);
    res.json(store.together(() => {
      const before = product(id);
      store.run('update products set name = ?, description = ?, price = ?, stock = ? where id = ?', name, description, price, stock, id);
      if (before.stock !== stock) events.publish('inventory.updated', { productId: id, stock });
      return product(id);
    }));
  }));

  app.delete('/products/:id(\\d+)', handle((req, res) => {
    const id = Number(req.params.id);
    product(id);
    store.run('delete from products where id = ?', id);
    res.status(204).end();
  }));
}

const handlers = (store, events) => ({
  'order.created': ({ items }) => {
    for (const { productId, quantity } of items) {
      const row = store.one('update products set stock = max(stock - ?, 0) where id = ? returning stock', quantity, productId);
      if (row) events.publish('inventory.updated', { productId, stock: row.stock });
    }
  },
});

serve({ name: 'product-service', port: 3002, tables, routes, handlers });

create table if not exists orders (
    id integer primary key,
    user_id integer not null,
    status text not null,
    total integer not null, -- in cents
    created_at text not null
);
create table if not exists items (
    order_id integer not null references orders,
    product_id integer not null,
    name text not null,
    price integer not null,
    quantity integer not null
);
create index if not exists orders_of_user on orders (user_id);
create index if not exists items_of_order on items (order_id);

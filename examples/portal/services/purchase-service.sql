create table if not exists purchases (
    id integer primary key,
    user_id integer not null,
    product_id integer not null,
    quantity integer not null,
    discount integer not null, -- in percent
    total integer not null, -- in cents
    delivery_date text not null,
    status text not null,
    created_at text not null
);
create index if not exists purchases_of_user on purchases (user_id);

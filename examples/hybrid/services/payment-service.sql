create table if not exists payments (
    order_id int primary key,
    user_id int not null,
    amount int not null,
    status enum('charged', 'refunded') not null
);

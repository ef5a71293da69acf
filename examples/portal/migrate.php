<?php
// Makes a service's tables where they are not there, and the administrator that ADMIN_EMAIL and ADMIN_PASSWORD name.

use App\Store;

require __DIR__ . '/app/functions.php';
require __DIR__ . '/app/Store.php';

Store::database()->exec(file_get_contents(__DIR__ . '/services/' . getenv('APP_NAME') . '.sql'));
if (getenv('APP_NAME') === 'user-service' && getenv('ADMIN_EMAIL') && getenv('ADMIN_PASSWORD')) {
    Store::all(
        "insert into users (name, email, password, role, created_at) values ('Administrator', ?, ?, 'admin', ?) on conflict do nothing",
        [getenv('ADMIN_EMAIL'), password_hash(getenv('ADMIN_PASSWORD'), PASSWORD_BCRYPT), now()],
    );
}

<?php
// Makes a service's database and tables where they are not there.

use App\Store;

require __DIR__ . '/app/Store.php';

$database = Store::connect();
$database->exec('create database if not exists `' . Store::name() . '`');
$database->exec('use `' . Store::name() . '`');
foreach (explode(";\n", file_get_contents(__DIR__ . '/services/' . getenv('APP_NAME') . '.sql')) as $statement) {
    if (trim($statement) !== '') {
        $database->exec($statement);
    }
}

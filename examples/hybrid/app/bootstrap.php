<?php
// What the services in PHP have in common: messages, a server and a client of gRPC, tables, events. Who finds, calls and protects them is lictor.

use App\Server;

// Classes are where their names say: ours here, messages in build/php, Google's in the include path.
spl_autoload_register(function (string $class): void {
    $file = strtr(preg_replace('/^App\\\\/', '', $class), '\\', '/') . '.php';
    $places = str_starts_with($class, 'App\\') ? [__DIR__ . "/$file"] : [__DIR__ . "/../build/php/$file", $file];
    foreach (array_filter(array_map('stream_resolve_include_path', $places)) as $place) {
        require $place;
        break;
    }
});

return new Server(require __DIR__ . '/../services/' . basename(getenv('APP_NAME')) . '.php');

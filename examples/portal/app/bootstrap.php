<?php
// What the services of the portal have in common: the application, its errors and its `/health`. Who finds, calls and protects them is lictor.

use App\Errors;
use App\Health;
use Illuminate\Contracts\Debug\ExceptionHandler;
use Laravel\Lumen\Application;

require_once 'GuzzleHttp/autoload.php';
require_once 'Laravel/Lumen/autoload.php';
spl_autoload_register(function (string $class): void {
    if (str_starts_with($class, 'App\\')) {
        require __DIR__ . '/' . substr($class, 4) . '.php';
    }
});

$app = new Application(getenv('DATA'));
$app->singleton(ExceptionHandler::class, Errors::class);
$app->router->get('/health', fn () => (new Health())->document());
(require __DIR__ . '/../services/' . basename(getenv('APP_NAME')) . '.php')($app->router);

return $app;

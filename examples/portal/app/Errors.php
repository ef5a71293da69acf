<?php
namespace App;

use Illuminate\Contracts\Debug\ExceptionHandler;
use Illuminate\Validation\ValidationException;
use Symfony\Component\HttpKernel\Exception\HttpExceptionInterface;
use Throwable;

/** Every failure in the portal's one shape: `status`, `message`, `timestamp`. */
class Errors implements ExceptionHandler
{
    public function report(Throwable $e): void
    {
        if (!$this->shouldReport($e)) {
            return;
        }
        error_log((string) $e);
    }

    public function shouldReport(Throwable $e): bool
    {
        return !$e instanceof ValidationException && !$e instanceof HttpExceptionInterface;
    }

    public function render($request, Throwable $e)
    {
        [$status, $message, $more] = match (true) {
            $e instanceof ValidationException => [422, 'The given data was invalid', ['errors' => $e->errors()]],
            $e instanceof HttpExceptionInterface => [$e->getStatusCode(), $e->getMessage() ?: self::usual($e->getStatusCode()), []],
            default => [500, 'Internal server error', []],
        };

        return response()->json(['status' => 'error', 'message' => $message, 'timestamp' => now()] + $more, $status);
    }

    public function renderForConsole($output, Throwable $e): void
    {
        $output->writeln((string) $e);
    }

    private static function usual(int $status): string
    {
        return [404 => 'Not found', 405 => 'Method not allowed'][$status] ?? 'Request failed';
    }
}

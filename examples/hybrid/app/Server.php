<?php
namespace App;

use Google\Protobuf\Internal\Message;
use ReflectionMethod;
use Throwable;

/** One call of gRPC: nginx speaks HTTP/2, and writes `X-Grpc-Status` and `X-Grpc-Message` as trailers. */
class Server
{
    /** @param array<string, object> $services by their names in the .proto files; methods have the names that they have there */
    public function __construct(private array $services)
    {
        $this->services['grpc.health.v1.Health'] = new Health();
    }

    public function service(string $name): object
    {
        return $this->services[$name];
    }

    public function answer(): void
    {
        [$status, $message, $reply] = $this->outcome($_SERVER['REQUEST_URI'], file_get_contents('php://input'));
        header('Content-Type: application/grpc');
        header("X-Grpc-Status: $status");
        if ($message !== '') {
            header('X-Grpc-Message: ' . rawurlencode($message));
        }
        echo $reply;
    }

    private function outcome(string $path, string $body): array
    {
        try {
            return [0, '', Frame::of($this->call($path, $body))];
        } catch (Failure $e) {
            return [$e->getCode(), $e->getMessage(), ''];
        } catch (Throwable $e) {
            error_log((string) $e);

            return [Failure::INTERNAL, 'Internal error', ''];
        }
    }

    private function call(string $path, string $body): Message
    {
        [, $name, $method] = explode('/', $path) + ['', '', ''];
        $service = $this->services[$name] ?? null;
        if ($service === null || !is_callable([$service, $method]) || !ctype_upper($method[0] ?? '')) {
            throw new Failure("$path is not implemented", Failure::UNIMPLEMENTED);
        }
        $kind = (new ReflectionMethod($service, $method))->getParameters()[0]->getType()->getName();

        return $service->$method(Frame::read($body, $kind));
    }
}

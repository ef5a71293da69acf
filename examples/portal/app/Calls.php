<?php
namespace App;

use GuzzleHttp\Client;

/** Calls of other services, at the addresses that lictor gives: no discovery, retries, breaker or tokens here. */
class Calls
{
    /** What belongs to the request that is being answered, and goes along. */
    private const FORWARDED = ['traceparent', 'tracestate', 'x-request-id', 'x-request-timeout-ms', 'x-lictor-attempt'];

    /** What is at a path of a service; null where there is nothing. */
    public static function get(string $service, string $path): ?array
    {
        $client = new Client(['base_uri' => getenv(strtoupper(strtr($service, '-', '_')) . '_URL'), 'http_errors' => false, 'timeout' => 35]);
        $answer = $client->get($path, ['headers' => array_filter(array_map(fn ($name) => request()->header($name), array_combine(self::FORWARDED, self::FORWARDED)))]);

        return match ($answer->getStatusCode()) {
            200 => json_decode((string) $answer->getBody(), true)['data'],
            404 => null,
            default => abort(503, 'Service temporarily unavailable'),
        };
    }

    public static function user(int $id): array
    {
        return self::get('user-service', "/api/users/$id") ?? abort(404, 'User not found');
    }

    public static function product(int $id): array
    {
        return self::get('product-service', "/api/products/$id") ?? abort(404, "Product $id not found");
    }
}

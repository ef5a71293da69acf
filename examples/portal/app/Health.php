<?php
namespace App;

use Illuminate\Http\JsonResponse;
use Throwable;

/** `/health`: what Consul asks. Whether the services that this one calls are there is lictor's `/ready`. */
class Health
{
    public function document(): JsonResponse
    {
        $checks = ['database' => $this->look('Database', fn () => Store::database()->query('select 1'))];
        if (getenv('REDIS_HOST')) {
            $checks['redis'] = $this->look('Redis', fn () => Store::redis()->ping());
        }
        $healthy = !in_array('unhealthy', array_column($checks, 'status'), true);
        $used = memory_get_usage(true) / 1024 / 1024;
        $checks['memory'] = $used > 256
            ? ['status' => 'warning', 'message' => "High memory usage: {$used}MB"]
            : ['status' => 'healthy', 'message' => "Memory usage: {$used}MB"];

        return response()->json([
            'status' => $healthy ? 'healthy' : 'unhealthy',
            'timestamp' => now(),
            'service' => getenv('APP_NAME'),
            'version' => '1.0.0',
            'checks' => $checks,
        ], $healthy ? 200 : 503);
    }

    private function look(string $what, callable $try): array
    {
        try {
            $try();

            return ['status' => 'healthy', 'message' => "$what connection successful"];
        } catch (Throwable $e) {
            return ['status' => 'unhealthy', 'message' => "$what connection failed: " . $e->getMessage()];
        }
    }
}

<?php
namespace App;

use Grpc\Health\V1\HealthCheckRequest;
use Grpc\Health\V1\HealthCheckResponse;
use Grpc\Health\V1\HealthCheckResponse\ServingStatus;

/** What Consul asks: the service serves while it has its tables. */
class Health
{
    public function Check(HealthCheckRequest $request): HealthCheckResponse
    {
        try {
            Store::all('select 1');
            $status = ServingStatus::SERVING;
        } catch (Failure) {
            $status = ServingStatus::NOT_SERVING;
        }

        return (new HealthCheckResponse())->setStatus($status);
    }
}

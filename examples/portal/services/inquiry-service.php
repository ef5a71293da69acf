<?php
// Inquiries (`/api/inquiries`): what a user wants to know of a product before buying it.

use App\Calls;
use App\Store;
use Illuminate\Http\Request;

function inquiry_by_id(int $id, int $user): array
{
    return Store::one('select * from inquiries where id = ? and user_id = ?', [$id, $user]) ?? abort(404, 'Inquiry not found');
}

return function ($router): void {
    $router->get('/api/inquiries', fn (Request $request) => success(Store::all('select * from inquiries where user_id = ? order by id desc limit 100', [caller($request)])));

    $router->get('/api/inquiries/{id:[0-9]+}', fn (Request $request, $id) => success(inquiry_by_id((int) $id, caller($request))));

    $router->post('/api/inquiries', function (Request $request) {
        $asked = valid($request, ['product_id' => 'required|integer|min:1', 'quantity' => 'required|integer|min:1|max:1000000', 'message' => 'required|string|max:2000']);
        $user = Calls::user(caller($request));
        $product = Calls::product($asked['product_id']);
        Store::all(
            "insert into inquiries (user_id, contact, product_id, product, quantity, message, status, created_at) values (?, ?, ?, ?, ?, ?, 'open', ?)",
            [$user['id'], $user['email'], $product['id'], $product['name'], $asked['quantity'], $asked['message'], now()],
        );

        return success(inquiry_by_id((int) Store::database()->lastInsertId(), $user['id']), 201);
    });
};

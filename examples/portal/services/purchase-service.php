<?php
// Bulk purchases (`/api/bulk-purchase`): many of one product, for less.

use App\Calls;
use App\Store;
use Illuminate\Http\Request;

function purchase_by_id(int $id, int $user): array
{
    return Store::one('select * from purchases where id = ? and user_id = ?', [$id, $user]) ?? abort(404, 'Purchase not found');
}

return function ($router): void {
    $router->get('/api/bulk-purchase', fn (Request $request) => success(Store::all('select * from purchases where user_id = ? order by id desc limit 100', [caller($request)])));

    $router->get('/api/bulk-purchase/{id:[0-9]+}', fn (Request $request, $id) => success(purchase_by_id((int) $id, caller($request))));

    $router->post('/api/bulk-purchase', function (Request $request) {
        $asked = valid($request, ['product_id' => 'required|integer|min:1', 'quantity' => 'required|integer|min:100|max:1000000', 'delivery_date' => 'required|date_format:Y-m-d']);
        $user = Calls::user(caller($request));
        $product = Calls::product($asked['product_id']);
        if ($product['stock'] < $asked['quantity']) {
            abort(409, "Insufficient stock of {$product['name']}");
        }
        $discount = $asked['quantity'] >= 1000 ? 10 : 5;
        $total = intdiv($product['price'] * $asked['quantity'] * (100 - $discount), 100);
        Store::all(
            "insert into purchases (user_id, product_id, quantity, discount, total, delivery_date, status, created_at) values (?, ?, ?, ?, ?, ?, 'requested', ?)",
            [$user['id'], $product['id'], $asked['quantity'], $discount, $total, $asked['delivery_date'], now()],
        );

        return success(purchase_by_id((int) Store::database()->lastInsertId(), $user['id']), 201);
    });
};

# An endpoint made by Terraform. None is made unless somebody names a model: an endpoint bills every hour, asked or not.
# infra/deploy_endpoint.sh makes and changes the same endpoint, checks what it answers, and can take over this one.

locals {
  sagemaker_names = var.sagemaker_model == null ? {} : { (local.endpoint) = var.sagemaker_model }
}

resource "aws_sagemaker_model" "scorer" {
  # checkov:skip=CKV_AWS_370: the container opens the journal, the online store and the bucket, and learns of a new secret; nothing of that works in isolation
  for_each = local.sagemaker_names

  name               = "${each.key}-terraform"
  execution_role_arn = aws_iam_role.sagemaker.arn

  primary_container {
    image          = each.value.image
    model_data_url = each.value.archive
    environment    = merge({ MLOPS_PLATFORM__OBJECTS = "s3://${aws_s3_bucket.data.bucket}" }, each.value.environment)
  }
}

resource "aws_sagemaker_endpoint_configuration" "scorer" {
  for_each = local.sagemaker_names

  name        = "${each.key}-terraform"
  kms_key_arn = aws_kms_key.main.arn

  production_variants {
    variant_name                                      = "production"
    model_name                                        = aws_sagemaker_model.scorer[each.key].name
    instance_type                                     = each.value.instance_type
    initial_instance_count                            = 1
    initial_variant_weight                            = 1
    container_startup_health_check_timeout_in_seconds = 600
  }
}

resource "aws_sagemaker_endpoint" "scorer" {
  for_each = local.sagemaker_names

  name                 = each.key
  endpoint_config_name = aws_sagemaker_endpoint_configuration.scorer[each.key].name

  lifecycle {
    # A version that infra/deploy_endpoint.sh brought into service stays there.
    ignore_changes = [endpoint_config_name]
  }
}
